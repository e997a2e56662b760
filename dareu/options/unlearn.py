"""The options of `dareu unlearn`, for it and for the recipes that run it."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from dareu.data.parts import DataArguments
from dareu.data.refusals import load_refusals
from dareu.files import read_yaml
from dareu.methods import METHODS, Method, find_method
from dareu.metrics import METRICS, NEED_BASE, Metric, check_metrics
from dareu.options.finetune import FinetuneArguments
from dareu.options.judges import check_judges
from dareu.options.parsing import OptionParser
from dareu.options.policy import PolicyArguments
from dareu.plugins import needed_parameters, resolve
from dareu.trainers import UnlearnTrainer
from dareu.values import PLUGIN, READ, Reads, as_list, as_mapping

#: What a reward may ask for by naming it as a parameter; see `dareu.rewards`.
OFFERED_TO_REWARDS = ("classifier", "forget_owners", "nll", "retained", "tokenizer")


@dataclass
class MethodArguments:
    """The method, which decides what other options there are."""

    method: Annotated[str, PLUGIN] = field(
        default="dareu",
        metadata={"help": f"{', '.join(METHODS)}, or a Method of your own as pkg.mod:Name or path/to/file.py:Name."},
    )
    strict: bool = field(
        default=False, metadata={"help": "End with an error, not a warning, where nothing can have been forgotten."}
    )


@dataclass
class JudgeArguments:
    """Who judges the training, and when it stops."""

    validation_judge: Annotated[str | None, READ] = field(
        default=None,
        metadata={"help": "The folder of the classifier that decides when to stop, every validation_steps."},
    )
    base_model: Annotated[str | None, READ] = field(
        default=None,
        metadata={
            "help": "The checkpoint the target was fine-tuned from: it guides DareU's groups, judges fluency, and is "
            "what validation compares with; loaded in dtype."
        },
    )
    stop_at_base_level: bool = field(
        default=False,
        metadata={"help": "Stop once the validation judge finds the owners no more than in the base model's answers."},
    )
    test_judge: str | None = field(
        default=None,
        metadata={"help": "The classifier kept for the final report; named here it is an error elsewhere."},
    )
    eval_metrics: Annotated[list[str] | None, PLUGIN] = field(
        default=None,
        metadata={
            "help": "Metrics of `dareu measure` that eval_strategy computes and metric_for_best_model may name, as in "
            "eval_forget_rouge; the judge among them is the validation judge."
        },
    )
    eval_metric_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict, metadata={"help": "Options of each of them, as YAML or JSON."}
    )
    eval_max_rows: int | None = field(
        default=64, metadata={"help": "Evaluate on at most so many rows of each kind, evenly spread."}
    )

    def __post_init__(self) -> None:
        self.eval_metrics = as_list(self.eval_metrics)
        self.eval_metric_kwargs = as_mapping("eval_metric_kwargs", self.eval_metric_kwargs)
        if self.eval_metric_kwargs and not self.eval_metrics:
            raise ValueError("eval_metric_kwargs has options of metrics, and eval_metrics names none: name them too.")
        if self.eval_max_rows is not None and self.eval_max_rows < 1:
            raise ValueError(f"eval_max_rows is {self.eval_max_rows}: give a number of rows.")

    def evaluated(self) -> dict[str, Metric]:
        """The metrics that are computed in training, by name.

        Raises:
            ValueError: One stands for nothing, or cannot be computed in training.
        """
        chosen = {name: resolve(name, METRICS) for name in self.eval_metrics or ()}
        missing = {}
        if self.validation_judge is None:
            missing["judgements"] = "there is no judge: give validation_judge"
        if self.base_model is None:
            missing |= dict.fromkeys(NEED_BASE, "there is no base model: give base_model")
        later = "the control is compared with afterwards, by dareu measure"
        missing |= dict.fromkeys(("retrained", "retrained_row_values", "common"), later)
        if chosen:
            check_metrics(chosen, as_mapping("eval_metric_kwargs", self.eval_metric_kwargs), missing)
        return chosen


@dataclass
class RetainArguments:
    """What the retain term is taken on, for every method."""

    background_share: float | None = field(
        default=None,
        metadata={
            "help": "Share of background people's rows in the stream of retained rows, where the data have such; "
            "default: what the target was fine-tuned with, as its run folder says, or 0.5."
        },
    )

    def __post_init__(self) -> None:
        if self.background_share is not None and not 0 <= self.background_share < 1:
            raise ValueError(f"background_share is {self.background_share}: give a share in [0, 1).")

    def share(self, target: str) -> float:
        """The share of background rows.

        Args:
            target: The model that is unlearned, whose run folder says what it was fine-tuned with.
        """
        if self.background_share is not None:
            return self.background_share
        asked = {""}
        while target not in asked and (config := Path(target).parent / "config.yaml").is_file():
            asked.add(target)
            said = read_yaml(config)
            if (share := said.get("background_share")) is not None:
                return float(share)
            target = said.get("model_name_or_path") or ""  # an unlearned target's run says what it was made of
        return FinetuneArguments.background_share


@dataclass
class RewardArguments:
    """The rewards of a method that learns from them."""

    rewards: Annotated[dict[str, Any] | str | None, PLUGIN] = field(
        default_factory=lambda: {"deattribution": 1.0, "fluency": 0.5},
        metadata={
            "help": "Rewards and their weights, as YAML or JSON: deattribution, fluency, or one of your own as "
            "pkg.mod:Name or path/to/file.py:Name."
        },
    )
    reward_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict,
        metadata={"help": "Options of each reward, as YAML or JSON: {fluency: {quantile: 0.9, width: 1.0}}."},
    )
    classifier: Annotated[str, Reads(plugin=True)] = field(
        default="",
        metadata={"help": "The reward's classifier: a folder, or a plug-in as pkg.mod:Name or path/to/file.py:Name."},
    )
    classifier_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict, metadata={"help": "Options of a plug-in classifier, as YAML or JSON."}
    )

    def __post_init__(self) -> None:
        self.rewards = as_mapping("rewards", self.rewards)
        self.reward_kwargs = as_mapping("reward_kwargs", self.reward_kwargs)
        self.classifier_kwargs = as_mapping("classifier_kwargs", self.classifier_kwargs)
        for name, weight in self.rewards.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise ValueError(f"rewards gives {name} the weight {weight!r}: give a number.")
        if not any(self.rewards.values()):
            raise ValueError(f"rewards is {self.rewards}: give at least one reward a weight other than 0.")
        for name, options in self.reward_kwargs.items():
            if name not in self.rewards:
                raise ValueError(f"reward_kwargs has options of {name!r}, which rewards does not name: add it there.")
            if not isinstance(options, dict):
                raise ValueError(f"reward_kwargs gives {name} {options!r}: give a mapping of its options.")

    def chosen(self) -> dict[str, tuple[float, dict[str, Any]]]:
        """Weight and options of each reward whose weight is not 0, by its name or spelling."""
        weights, options = as_mapping("rewards", self.rewards), as_mapping("reward_kwargs", self.reward_kwargs)
        return {name: (float(weight), options.get(name, {})) for name, weight in weights.items() if weight}

    def plugs_in_classifier(self) -> bool:
        """Whether the classifier is a plug-in, and no folder."""
        return ":" in self.classifier and not Path(self.classifier).is_dir()


class UnlearnOptions(NamedTuple):
    """All that `dareu unlearn` is told."""

    choice: MethodArguments
    data: DataArguments
    judges: JudgeArguments
    policy: PolicyArguments
    retaining: RetainArguments
    training: Any
    """The method's config, a `TrainingArguments` with the options that all unlearning trainers share."""
    rewarding: RewardArguments | None = None
    """None where the method has a loss."""

    @property
    def method(self) -> Method:
        """What the method's name stands for."""
        return find_method(self.choice.method)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The dataclasses, for `config_of` and `inputs_of`."""
        return tuple(part for part in self if part is not None)


def unlearn_parser(method: Method, *more: type[Any]) -> OptionParser:
    """Parses the options that `dareu unlearn` has for a method, and those of more dataclasses.

    The method's usual settings are the defaults. The dataclasses come in the order of `UnlearnOptions`, without
    `RewardArguments` where the method has a loss, and then the others.

    Raises:
        ValueError: The method's `defaults` name options that it does not have.
    """
    parts = [MethodArguments, DataArguments, JudgeArguments, PolicyArguments, RetainArguments, method.config]
    if method.loss is None:
        parts.append(RewardArguments)
    parser = OptionParser([*parts, *more])
    if unknown := parser.set_defaults_with_config(**method.defaults):  # a config file and the command line go first
        raise ValueError(f"The method's defaults name options that it does not have: {' '.join(unknown)}.")
    return parser


def parse_unlearning(*more: type[Any]) -> tuple[UnlearnOptions, list[Any]]:
    """Reads the command line of a recipe that unlearns, the method first, since it decides what else there is.

    Args:
        more: Dataclasses of further options.

    Returns:
        The options, and what `more` became.

    Raises:
        ValueError: An option is none there is, or cannot be.
        SystemExit: `--help` was asked for; the options of the method were printed.
    """
    wants_help = "--help" in sys.argv or "-h" in sys.argv
    known = [argument for argument in sys.argv[1:] if argument not in ("--help", "-h")]
    first = OptionParser((MethodArguments,))
    choice = first.parse_args_and_config(known, return_remaining_strings=True, fail_with_unknown_args=False)[0]
    parser = unlearn_parser(find_method(choice.method), *more)
    return as_options(parser.parse_args_and_config(["--help"] if wants_help else None), len(more))


def as_options(parsed: Any, more: int = 0) -> tuple[UnlearnOptions, list[Any]]:
    """What a parser of `unlearn_parser` gave, and the last `more` dataclasses apart."""
    parts = list(parsed)
    own, others = parts[: len(parts) - more], parts[len(parts) - more :]
    return UnlearnOptions(*own), others


def check_unlearning(options: UnlearnOptions, rewards: Mapping[str, Callable[..., Any]]) -> None:
    """Refuses options that do not go together, as far as can be told without model and data.

    Args:
        options: They stay as they are.
        rewards: The built-in rewards by name.

    Raises:
        ValueError: In one sentence.
    """
    method, judges, training = options.method, options.judges, options.training
    if judges.stop_at_base_level:
        if training.stop_forget_attribution is not None:
            raise ValueError("stop_at_base_level and stop_forget_attribution exclude each other: give one.")
        training = copy.copy(training)
        training.stop_forget_attribution = 0.0  # a stand-in: it is measured once the base model is there
    training.check()
    if bool(judges.evaluated()) != (training.eval_strategy != "no"):
        raise ValueError("eval_metrics says what eval_strategy computes: give both, or neither.")
    if judges.stop_at_base_level and not (judges.validation_judge and judges.base_model and training.validation_steps):
        raise ValueError("stop_at_base_level needs validation_judge, base_model and validation_steps.")
    if training.stop_fluency_nll is not None and judges.base_model is None:
        raise ValueError("stop_fluency_nll needs base_model, under which answers are fluent or not.")
    if method.loss is not None and issubclass(method.trainer, UnlearnTrainer):
        method.trainer.needed_tensors(method.loss, training)
        if training.refusals is not None:
            load_refusals(training.refusals)
    if options.rewarding is not None:
        _check_rewards(options.rewarding, training, rewards)
    check_judges(
        classifier=None if options.rewarding is None else options.rewarding.classifier,
        validation_judge=judges.validation_judge,
        test_judge=judges.test_judge,
    )


def _check_rewards(rewarding: RewardArguments, training: Any, known: Mapping[str, Callable[..., Any]]) -> None:
    if training.reward_weights is not None:
        raise ValueError("rewards says what each reward weighs: leave reward_weights out.")
    chosen, asked = rewarding.chosen(), False
    for name in as_mapping("rewards", rewarding.rewards):
        options = as_mapping("reward_kwargs", rewarding.reward_kwargs).get(name, {})
        needs = needed_parameters(resolve(name, known), OFFERED_TO_REWARDS, options, f"The reward {name!r}")
        asked = asked or ("classifier" in needs and name in chosen)
    if asked and not rewarding.classifier:
        raise ValueError("classifier is missing: name the folder of the reward classifier.")
    kwargs = as_mapping("classifier_kwargs", rewarding.classifier_kwargs)
    if rewarding.plugs_in_classifier():
        needed_parameters(resolve(rewarding.classifier, {}), (), kwargs, f"The classifier {rewarding.classifier!r}")
    elif kwargs:
        raise ValueError("classifier_kwargs has no effect on a classifier's folder: leave it out.")
