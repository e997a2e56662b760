"""The whole story offline in minutes: a world, its target, the retrained control, DareU, baselines, a comparison.

    dareu quickstart

Every stage is one of the other recipes, run in a process of its own; the commands are printed, so that each can be run
alone. Results go to OUTPUT_DIR/results.json. Started again, it goes on where it was.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from dareu.console import plain_console
from dareu.data.parts import DataArguments, forget_names, load_parts, split_owners
from dareu.metrics import shown_columns
from dareu.options.parsing import OptionParser
from dareu.report import shown_digits
from dareu.runs import (
    beside_control,
    common_numbers,
    config_of,
    open_run,
    read_measurement,
    read_results,
    write_results,
)
from dareu.runs.program import run_program
from dareu.runs.stages import Stage, run_stages

CONFIGS = Path(__file__).parent / "configs" / "fictional"

#: The rows of the comparison: a name, the method's config, and the mask.
UNLEARNED = (
    ("dareu-wagle", "dareu", "wagle"),
    ("dareu-random", "dareu", "random"),
    ("dareu-dense", "dareu", None),
    ("npo-wagle", "npo", "wagle"),
    ("npo-dense", "npo", None),
    ("graddiff-dense", "graddiff", None),
)


@dataclass
class QuickstartArguments:
    """Where it runs, and how much."""

    output_dir: str = field(default="runs/quickstart", metadata={"help": "The run's folder."})
    density: float = field(default=0.5, metadata={"help": "Share of the weights that the masks leave free."})
    seed: int = field(default=0, metadata={"help": "Seed of every stage."})
    jobs: int = field(default=2, metadata={"help": "Stages run at a time, each on one core."})
    smoke: bool = field(default=False, metadata={"help": "A few updates only: checks the recipes, proves nothing."})


def main() -> None:
    data, args = OptionParser((DataArguments, QuickstartArguments)).parse_args_and_config()
    if data.dataset != "fictional":
        raise ValueError("The quickstart tells its story on the fictional world: leave dataset as it is.")
    if not 0 < args.density <= 1:
        raise ValueError(f"density is {args.density}: give a share in (0, 1].")
    everyone = load_parts(data).owners
    split_owners(data, everyone)  # refuses unknown owners before anything is written
    owners = forget_names(data, everyone)
    run = open_run(args.output_dir, config_of(data, args))
    folder, start = run.folder, time.perf_counter()
    print(f"To forget: {', '.join(owners)}\n")

    failed = run_stages(
        plan(data, args, folder, owners), folder / "logs", args.jobs, environment={"HF_HUB_OFFLINE": "1"}
    )
    if failed:
        raise ValueError(next(iter(failed.values())))

    # Compare
    measured = {name: read_measurement(folder / name / "measurement.json") for name in model_names()}
    common = common_numbers(measured.values())
    rows = []
    for name in model_names():
        (row,) = read_results(folder / name / "results.json")
        row["metrics"].update(beside_control(measured[name], measured["retrained"], common=common))
        rows.append(row)
    write_results(run.results_path, rows)
    masks = [row["mask"] or ("" if row["seconds"] is None else "dense") for row in rows]
    heads = [f"{row['method']}\n{mask}" for row, mask in zip(rows, masks, strict=True)]
    table = Table("", *heads, title="Comparison")
    for name in shown_columns():
        digits = shown_digits(name)
        table.add_row(name, *(f"{row['metrics'][name]:.{digits}f}" if name in row["metrics"] else "" for row in rows))
    table.add_row("updates", *(f"{row['metrics'].get('updates', 0):.0f}" for row in rows))
    table.add_row("seconds", *("" if row["seconds"] is None else f"{row['seconds']:.0f}" for row in rows))
    plain_console(130).print(table)
    print_samples(folder)
    for name, _, mask in UNLEARNED:
        if mask is not None:
            moved = read_results(folder / name / "results.json")[0]["metrics"]["moved_outside_mask"]
            print(f"{name}: {moved:.0f} weights outside the {mask} mask moved, compared bit for bit.")
    print(f"\nThe rows are in {run.results_path}. It took {(time.perf_counter() - start) / 60:.1f} minutes.")


def plan(data: DataArguments, args: QuickstartArguments, folder: Path, owners: list[str]) -> list[Stage]:
    """Every stage with its command."""
    world = ["--num_owners", data.num_owners, "--world_seed", data.world_seed]
    asked = [*world, "--forget_owners", *owners]
    seed = ["--seed", args.seed]
    short = ["--max_steps", 4] if args.smoke else []
    target, classifier = folder / "target" / "model", folder / "classifier" / "classifier"
    judges = {kind: folder / f"{kind}_judge" / "classifier" for kind in ("validation", "test")}

    def stage(name: str, recipe: str, config: str, *after: str, options: Sequence[Any] = ()) -> Stage:
        file, made = CONFIGS / f"{config}.yaml", folder / name / "done"
        words = [recipe, "--config", file, "--output_dir", folder / name, *options]
        return Stage(name, after, (tuple(str(word) for word in words),), content=file, makes=(made,), kind=config)

    stages = [
        stage("target", "finetune", "target", options=[*world, *seed, *short]),
        stage("retrained", "finetune", "target", options=[*world, *seed, *short, "--exclude_owners", *owners]),
        stage("classifier", "train_classifier", "classifier", options=[*world, *seed]),
        stage("test_judge", "train_classifier", "test_judge", options=world),
        stage("validation_judge", "train_classifier", "validation_judge", options=world),
    ]
    for score in ("wagle", "random"):
        options = [*asked, *seed, "--model_name_or_path", target, "--score", score, "--density", args.density]
        stages.append(stage(f"mask-{score}", "attribute_weights", "mask", "target", options=options))
    for name, method, mask in UNLEARNED:
        after = ["target", "validation_judge"] + (["classifier"] if method == "dareu" else [])
        options = [*asked, *seed, *short, "--model_name_or_path", target]
        options += ["--validation_judge", judges["validation"], "--test_judge", judges["test"]]
        if method == "dareu":
            options += ["--classifier", classifier]
        if mask is not None:
            after.append(f"mask-{mask}")
            options += ["--mask", folder / f"mask-{mask}" / "mask.safetensors"]
        stages.append(stage(name, "unlearn", method, *after, options=options))
    for name in model_names():
        words = ["measure", "--config", CONFIGS / "measure.yaml", *asked]
        words += ["--model_name_or_path", folder / name / "model", "--reward_judge", classifier]
        words += ["--test_judge", judges["test"]]
        if args.smoke:
            words += ["--max_rows", 8, "--max_new_tokens", 8]
        command, made = tuple(str(word) for word in words), (folder / name / "measurement.json",)
        after_measure = (name, "classifier", "test_judge")
        stages.append(
            Stage(f"measure-{name}", after_measure, (command,), CONFIGS / "measure.yaml", made, kind="measure")
        )
    return stages


def model_names() -> list[str]:
    """The folders of the models that are compared."""
    return ["target", "retrained", *(name for name, _, _ in UNLEARNED)]


def print_samples(folder: Path) -> None:
    """Three questions about a forgotten owner with the answers before, retrained and after."""
    names = ("target", "retrained", "dareu-wagle")
    before, control, after = (read_measurement(folder / name / "measurement.json") for name in names)
    prompts = before["prompts"]["forget"]
    for row in (0, len(prompts) // 3, 2 * len(prompts) // 3):
        print(f"\n{prompts[row]}")
        print(f"  before:    {before['answers']['forget'][row]}")
        print(f"  after:     {after['answers']['forget'][row]}")
        print(f"  retrained: {control['answers']['forget'][row]}")
    print()


if __name__ == "__main__":
    run_program(main, "quickstart")
