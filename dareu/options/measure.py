"""The options of `dareu measure`, for it and for the recipes that run it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from dareu.metrics import METRICS, NEED_BASE, Metric, check_metrics, compares
from dareu.options.judges import check_judges
from dareu.plugins import resolve
from dareu.values import PLUGIN, READ, as_list, as_mapping

COSTLY = [name for name, metric in METRICS.items() if metric.costly]


@dataclass
class MeasureArguments:
    """Which model is measured, by what, and who judges."""

    model_name_or_path: Annotated[str, READ] = field(metadata={"help": "The model folder."})
    reward_judge: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The folder of the classifier that the reward came from."}
    )
    test_judge: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The folder of a classifier of another family, used for nothing else."}
    )
    validation_judge: Annotated[str | None, READ] = field(
        default=None,
        metadata={"help": "The folder of the classifier that decided when to stop, for choosing settings."},
    )
    base_model: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The checkpoint that the target was fine-tuned from, which judges fluency."}
    )
    retrained: Annotated[str | None, READ] = field(
        default=None,
        metadata={"help": "measurement.json of the retrained control; gives the retraining gap, gibberish and ToW."},
    )
    metrics: Annotated[list[str] | None, PLUGIN] = field(
        default=None,
        metadata={
            "help": f"{', '.join(METRICS)}, or a Metric of your own as pkg.mod:NAME or path/to/file.py:NAME; "
            f"default: all of those named here that can be computed, but for {', '.join(COSTLY)}, which takes long."
        },
    )
    metric_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict,
        metadata={"help": "Options of each metric, as YAML or JSON: {path/to/file.py:NAME: {limit: 3}}."},
    )
    max_rows: int | None = field(
        default=None, metadata={"help": "Measure at most so many retained and test rows, evenly spread."}
    )
    fold: str | None = field(
        default=None,
        metadata={"help": "Measure a part of each owner's rows, '0/2' for the first of two; default: all."},
    )
    max_new_tokens: int = field(default=200, metadata={"help": "Tokens of the longest answer."})
    num_samples: int = field(
        default=16, metadata={"help": "Answers sampled for each row to forget, at temperature 1; 0: none."}
    )
    sample_seed: int = field(default=0, metadata={"help": "Seed of the sampled answers."})
    measure_batch_size: int = field(
        default=64, metadata={"help": "Rows that are measured at a time; the results do not depend on it."}
    )
    measure_cache_dir: str | None = field(
        default=None,
        metadata={"help": "Where answers and scores of rows are kept; default: 'measured' beside the file to write."},
    )
    strict: bool = field(
        default=False, metadata={"help": "Fail where a metric, or one of its numbers, would be left out."}
    )
    output: str | None = field(
        default=None, metadata={"help": "The file to write; default: measurement.json beside the model folder."}
    )

    def __post_init__(self) -> None:
        self.metrics = as_list(self.metrics)
        if self.metrics is not None and not (self.metrics and all(isinstance(name, str) for name in self.metrics)):
            raise ValueError(f"metrics is {self.metrics!r}: name at least one, or leave it out for all.")
        for name in ("num_samples", "sample_seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a whole number of at least 0.")
        self.metric_kwargs = as_mapping("metric_kwargs", self.metric_kwargs)
        for name, options in self.metric_kwargs.items():
            if not isinstance(options, dict):
                raise ValueError(f"metric_kwargs has {options!r} for {name}: give a mapping of that metric's options.")


@dataclass(frozen=True)
class Chosen:
    """The metrics of a measurement."""

    metrics: dict[str, Metric] | None
    """By name; None where those of `METRICS` that can be computed are meant."""
    options: dict[str, dict[str, Any]]
    """Of each metric, its options by name."""
    needs: dict[str, tuple[str, ...]]
    """What each asks for."""

    def need(self, what: str) -> bool:
        """Whether a metric asks for something."""
        return any(what in asked for asked in self.needs.values())


def chosen_metrics(args: MeasureArguments) -> Chosen:
    """The metrics that the options name, once it is known that they can be computed.

    Raises:
        ValueError: A judge has two jobs, a name stands for no metric, or a metric cannot be computed, as far as that
            can be told without models and data.
    """
    check_judges(reward_judge=args.reward_judge, validation_judge=args.validation_judge, test_judge=args.test_judge)
    options = as_mapping("metric_kwargs", args.metric_kwargs)
    if args.metrics is None:
        return Chosen(None, options, check_metrics(METRICS, options))
    missing = {} if args.num_samples else {"samples": "num_samples is 0: give a number of at least 1"}
    if not (args.reward_judge or args.validation_judge or args.test_judge):
        missing["judgements"] = "there is no judge: give reward_judge, validation_judge or test_judge"
    if args.base_model is None:
        missing |= dict.fromkeys(NEED_BASE, "there is no base model: give base_model")
    if args.retrained is None:
        there = "there is no control: give the retrained model's measurement.json as retrained"
        missing |= dict.fromkeys(("retrained", "retrained_row_values", "common"), there)
    metrics = {name: resolve(name, METRICS) for name in args.metrics}
    needs = check_metrics(metrics, options, missing)
    if all(map(compares, needs.values())):
        raise ValueError(f"metrics names {', '.join(needs)} alone, made of other metrics' numbers: name those too.")
    for name, metric in metrics.items():
        if unread := [read for read in metric.reads if read not in metrics]:
            raise ValueError(f"metrics lacks {', '.join(unread)}, which {name} reads: add it.")
    return Chosen(metrics, options, needs)
