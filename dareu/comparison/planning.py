"""The stages that unlearn and measure, and the rows of the comparison that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dareu.comparison.asked import JUDGES
from dareu.comparison.entries import Entry, told
from dareu.comparison.ground import REPORT, VALIDATION, Ground, parsed_option
from dareu.runs.plans import CONFIG, OWN
from dareu.spunge import split_forget
from dareu.trainers.arguments import SharedArguments
from dareu.values import as_list


class Row(NamedTuple):
    """One model of the comparison."""

    name: str
    mask: str | None
    seed: int
    setting: int
    """Which of the entry's settings."""
    folder: Path
    """Of the stage that unlearns and measures, or only measures."""
    model: str


def plan_seed(ground: Ground, entries: Sequence[Entry]) -> list[Row]:
    """Plans the stages of one seed: what the runs stand on, the runs, and the measures of each model.

    Args:
        ground: Of the seed; its plan gets the stages.
        entries: The methods to compare.

    Returns:
        Target and retrained control, then for each entry its masks, and for each of these its settings.

    Raises:
        ValueError: A config is missing, or something that would be made or run is refused by its recipe; says which.
    """
    models = {name: ground.name(name) for name in ("target", "retrained")}
    measures = measures_of(ground)
    rows = []
    for name, model in models.items():
        own = {"model_name_or_path": model}
        commands = [(["measure"], {"output": f"{OWN}/measurement.json", **options, **own}) for options in measures]
        after = ground.of("base", name, *JUDGES)
        label = f"measure-{name}-seed{ground.seed}"
        folder = ground.plan.add(label, commands, *after, makes="measurement.json", kind="measure")
        rows.append(Row(name, None, ground.seed, 0, folder, model))
    return rows + [row for entry in entries for row in _plan_entry(ground, entry, measures)]


def measures_of(ground: Ground) -> list[dict[str, Any]]:
    """What is measured of each model: all rows, or where there are trials, the halves apart.

    Raises:
        ValueError: The config is missing, `measure` would refuse it, or it leaves out what ToW is made of.
    """
    measure = ground.options(ground.configs / "measure.yaml", ground.request, model_name_or_path=f"{OWN}/model")
    measure |= {"test_judge": ground.name("test_judge"), "reward_judge": ground.name("classifier")}
    if "base_model" in measure:
        measure["base_model"] = ground.name("base")
    ground.check("measure", "measure", measure)
    named = as_list(measure.get("metrics"))
    if named is not None and "rouge" not in named:
        raise ValueError(
            f"metrics in {ground.configs / 'measure.yaml'} leaves out rouge, of which ToW is made: add it."
        )
    if not ground.asked.tune:
        return [measure]
    chosen_by = {**measure, "fold": VALIDATION, "output": f"{OWN}/validation/measurement.json"}
    del chosen_by["test_judge"]
    return [{**chosen_by, "validation_judge": ground.name("validation_judge")}, {**measure, "fold": REPORT}]


def _plan_entry(ground: Ground, entry: Entry, measures: list[dict[str, Any]]) -> list[Row]:
    """Plans the runs of one method, each with its measures."""
    rows, asked, seed = [], ground.asked, ground.seed
    launcher = ["--accelerate_config", asked.launch_with] if asked.launch_with and entry.recipe == "unlearn" else []
    for mask in entry.masks:
        for number, settings in enumerate(entry.settings):
            options = _options_of(ground, entry, mask, settings)
            if seed == asked.seeds[0]:
                _check_entry(ground, entry, options)
            commands = [([entry.recipe, *launcher], options), *((["measure"], measure) for measure in measures)]
            values = told(entry, settings)
            label = "-".join(map(str, [entry.name, mask, *values.values(), f"seed{seed}"]))
            after = ground.of("base", "target", f"mask-{mask}", *JUDGES)
            folder = ground.plan.add(label, commands, *after, makes="done", kind=entry.name)
            said = "" if asked.tune else "".join(f" {key}={value}" for key, value in values.items())
            under = None if mask == "dense" else mask
            rows.append(Row(entry.name + said, under, seed, number, folder, str(folder / "model")))
    return rows


def _options_of(ground: Ground, entry: Entry, mask: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The options of one run: its config's, with what the ground has for each role, and the entry's over them."""
    options = ground.options(entry.config, ground.request, method=entry.method, seed=ground.seed, output_dir=OWN)
    options |= {role: ground.name(role) for role in JUDGES if role in options}
    options |= {"base_model": ground.name("base")} if "base_model" in options else {}
    options |= {"model_name_or_path": ground.name("target")}
    options |= {"mask": None if mask == "dense" else ground.name(f"mask-{mask}")}
    if entry.recipe == "spunge":
        options |= {"measure_parts": not ground.asked.tune, "launch_with": ground.asked.launch_with, **settings}
        if options["measure_parts"]:  # as the merged model is
            options.setdefault("measure_config", f"{CONFIG}.1.yaml")
    return options | settings


def _check_entry(ground: Ground, entry: Entry, options: dict[str, Any]) -> None:
    """Refuses what the recipe would refuse of an entry, before anything is trained for it."""
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
