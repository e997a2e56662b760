"""The stages that unlearn and measure, and the rows of the comparison that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dareu.comparison.asked import JUDGES
from dareu.comparison.entries import Entry, told
from dareu.comparison.ground import REPORT, VALIDATION, Ground, files_of, parsed_option
from dareu.metrics import METRICS, Metric, check_metrics, compares
from dareu.plugins import resolve
from dareu.runs.plans import CONFIG, OWN
from dareu.spunge import split_forget
from dareu.trainers.arguments import SharedArguments
from dareu.values import as_list, as_mapping


class Row(NamedTuple):
    """One model of the comparison."""

    name: str
    mask: str | None
    seed: int
    setting: int | None
    """Which of the entry's settings; None: target or control, of which nothing was unlearned."""
    folder: Path
    """Of the stage that unlearns and measures, or only measures."""
    model: str


def plan_seed(ground: Ground, entries: Sequence[Entry]) -> list[Row]:
    """Plans the stages of one seed: what the runs stand on, the runs, and the measures of each model.

    Args:
        ground: Of the seed; its plan gets the stages.
        entries: The methods to compare.

    Returns:
        Target and retrained controls, then for each entry its masks, and for each of these its settings.

    Raises:
        ValueError: A config is missing, or something that would be made or run is refused by its recipe; says which.
    """
    further = [f"retrained-{number}" for number in range(2, ground.asked.num_controls + 1)]
    models = {role: ground.path_of(role) for role in ("target", "retrained", *further)}
    measures = measures_of(ground)
    rows = []
    for role, model in models.items():
        own = {"model_name_or_path": model}
        commands = [
            (["measure"], {"output": f"{OWN}/measurement.json", **options, **own}) for options in measures.options
        ]
        after = ground.stages_of("base", role, *JUDGES)
        label = f"measure-{role}-seed{ground.seed}"
        made = {"makes": "measurement.json", "kind": "measure"}
        folder = ground.plan.add(label, commands, *after, inputs=measures.inputs, **made)
        rows.append(Row(role.replace("-", " "), None, ground.seed, None, folder, model))
    return rows + [row for entry in entries for row in _plan_entry(ground, entry, measures)]


class Measures(NamedTuple):
    """How every model is measured."""

    options: list[dict[str, Any]]
    """Of `dareu measure`, without what compares with the control: of all rows, or where there are trials, of halves."""
    metrics: dict[str, Metric] | None
    """Those that were chosen, by name; None: all built-in ones that can be computed."""
    metric_kwargs: dict[str, Any]
    """Options of each."""
    inputs: list[Path]
    """What is read for it."""


def measures_of(ground: Ground) -> Measures:
    """How the models are measured, as `measure.yaml` says.

    Raises:
        ValueError: The config is missing, `measure` would refuse it, or it leaves out what trials or a metric read.
    """
    config = ground.configs / "measure.yaml"
    measure = ground.options(config, ground.request, model_name_or_path=f"{OWN}/model")
    measure |= {"test_judge": ground.path_of("test_judge"), "reward_judge": ground.path_of("classifier")}
    if "base_model" in measure:
        measure["base_model"] = ground.path_of("base")
    kwargs, named = as_mapping("metric_kwargs", measure.get("metric_kwargs")), as_list(measure.get("metrics"))
    metrics = None
    if named is not None:
        metrics = {name: resolve(name, METRICS) for name in named}
        taken = {name: metric.reads for name, metric in metrics.items() if isinstance(metric, Metric)}
        if ground.asked.tune:
            taken = {"tune": ("retraining_gap", *METRICS["retraining_gap"].reads, "attribution")} | taken
            if "base_model" in measure:
                taken["tune"] += METRICS["gibberish"].reads
        for taker, names in taken.items():
            if missing := [name for name in names if name not in named]:
                raise ValueError(f"metrics in {config} lacks {', '.join(missing)}, which {taker} reads: add it.")
        # The control is measured as any other model is, and compared with at the end
        alone = [name for name, needs in check_metrics(metrics, kwargs).items() if not compares(needs)]
        measure |= {"metrics": alone, "metric_kwargs": {name: kwargs[name] for name in alone if name in kwargs}}
    inputs = files_of(ground.check("measure", "measure", measure))
    if not ground.asked.tune:
        return Measures([measure], metrics, kwargs, inputs)
    chosen_by = {**measure, "fold": VALIDATION, "output": f"{OWN}/validation/measurement.json"}
    del chosen_by["test_judge"]
    if metrics is None:
        chosen_by["num_samples"] = 0  # which no setting is chosen by
    chosen_by["validation_judge"] = ground.path_of("validation_judge")
    inputs += files_of(ground.check("measure", "measure", chosen_by))
    return Measures([chosen_by, {**measure, "fold": REPORT}], metrics, kwargs, inputs)


def _plan_entry(ground: Ground, entry: Entry, measures: Measures) -> list[Row]:
    """Plans the runs of one method, each with its measures."""
    rows, asked, seed = [], ground.asked, ground.seed
    launcher = ["--accelerate_config", asked.launch_with] if asked.launch_with and entry.recipe == "unlearn" else []
    for mask in entry.masks:
        for number, settings in enumerate(entry.settings):
            options = _options_of(ground, entry, mask, settings)
            inputs = [*_checked(ground, entry, options), *measures.inputs]
            commands = [([entry.recipe, *launcher], options), *((["measure"], measure) for measure in measures.options)]
            values = told(entry, settings)
            label = "-".join(map(str, [entry.name, mask, *values.values(), f"seed{seed}"]))
            after = ground.stages_of("base", "target", f"mask-{mask}", *JUDGES)
            folder = ground.plan.add(label, commands, *after, inputs=inputs, makes="done", kind=entry.name)
            said = "" if asked.tune else "".join(f" {key}={value}" for key, value in values.items())
            under = None if mask == "dense" else mask
            rows.append(Row(entry.name + said, under, seed, number, folder, str(folder / "model")))
    return rows


def _options_of(ground: Ground, entry: Entry, mask: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The options of one run: its config's, with what the ground has for each role, and the entry's over them."""
    options = ground.options(entry.config, ground.request, method=entry.method, seed=ground.seed, output_dir=OWN)
    options |= {role: ground.path_of(role) for role in JUDGES if role in options}
    options |= {"base_model": ground.path_of("base")} if "base_model" in options else {}
    options |= {"model_name_or_path": ground.path_of("target")}
    options |= {"mask": None if mask == "dense" else ground.path_of(f"mask-{mask}")}
    if entry.recipe == "spunge":
        options |= {"measure_parts": not ground.asked.tune, "launch_with": ground.asked.launch_with, **settings}
        if options["measure_parts"]:  # as the merged model is
            options.setdefault("measure_config", f"{CONFIG}.1.yaml")
    return options | settings


def _checked(ground: Ground, entry: Entry, options: dict[str, Any]) -> list[Path]:
    """What a run reads, once it is known that its recipe would not refuse it, before anything is trained for it."""
    what = f"The entry {entry.name!r}"
    parsed = ground.check(what, entry.recipe, options)
    try:
        if (layers := ground.num_layers()) is not None:
            for part in parsed:
                if isinstance(part, SharedArguments):
                    part.check_layers(layers)
        if entry.recipe == "spunge":
            column, groups, minimum = (
                parsed_option(parsed, name) for name in ("split_column", "split_map", "min_part_rows")
            )
            split_forget(ground.forget, column, groups, minimum=minimum)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    return files_of(parsed)
