"""Splits a forget request by a column, unlearns each part from the same model by any method, and merges (SPUNGE).

    dareu spunge --config recipes/configs/fictional/spunge_npo.yaml
    dareu spunge --method npo --model_name_or_path runs/target/model --split_column group --output_dir runs/spunge

It takes every option of `dareu unlearn`, which it runs once a part. The merged model is in OUTPUT_DIR/model, those of
the parts in OUTPUT_DIR/parts, and what was measured of each part before and after the merge in OUTPUT_DIR/results.json.
Started again, it goes on where it was. `dareu spunge --method npo --help` lists the options.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from dareu.classifiers import load_classifier, owner_columns
from dareu.console import plain_console
from dareu.data.parts import DataArguments, forget_names, load_parts, split_owners
from dareu.deltas.merging import merge_models
from dareu.files import write_yaml
from dareu.masks import WeightMask, count_moved_outside, saved_for
from dareu.metrics import compares, shown_columns
from dareu.models import load_model, load_tokenizer
from dareu.models.generation import list_end_ids
from dareu.options.judges import check_judges
from dareu.options.measure import Chosen, MeasureArguments, chosen_metrics
from dareu.options.parsing import OptionParser
from dareu.options.policy import PolicyArguments
from dareu.options.spunge import SpungeArguments
from dareu.options.unlearn import UnlearnOptions, check_unlearning, parse_unlearning
from dareu.plugins import plugin_name
from dareu.rewards import REWARDS
from dareu.runs import (
    ResultRow,
    Run,
    beside_control,
    config_of,
    inputs_of,
    open_run,
    read_measurement,
    read_results,
    write_results,
)
from dareu.runs.program import run_program
from dareu.runs.stages import Stage, run_stages
from dareu.spunge import split_forget


def main() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("spunge is one process that starts others: name the config of those as launch_with.")
    unlearning, (args,) = parse_unlearning(SpungeArguments)
    choice, data, _, policy, _, training, _ = unlearning
    options = config_of(*unlearning.parts)

    # Everything that can be wrong is looked at before anything is written
    if data.part_column is not None:
        raise ValueError("part_column is set for each part: name the column as split_column.")
    if not policy.merge_adapter:
        raise ValueError("Parts are merged as whole models: leave merge_adapter as it is.")
    check_unlearning(unlearning, REWARDS)
    everyone = load_parts(data).owners
    owners, forget = forget_names(data, everyone), split_owners(data, everyone).forget
    parts = split_forget(forget, args.split_column, args.split_map, minimum=args.min_part_rows)
    inputs = inputs_of(*unlearning.parts, args)
    measuring, chosen, control = None, None, None
    if args.measure_parts:
        measuring, chosen = measure_options(args, unlearning, owners)
        inputs |= {f"measure.{name}": paths for name, paths in inputs_of(measuring).items()}
        control = None if measuring.retrained is None else read_measurement(measuring.retrained)
        leave_control_out(measuring, chosen)  # a part needs a control measured on that part
    run = open_run(training.output_dir, options | config_of(args), inputs, free=["jobs"])
    if run.done:
        print(f"{run.folder} is done: delete it to run again.")
        return
    method = f"spunge-{plugin_name(choice.method)}"
    print("Parts: " + ", ".join(f"{part.name} ({len(part.rows)} rows)" for part in parts) + "\n")

    # Unlearn each part, and measure it on its own model
    stages, folders = [], {part.name: run.folder / "parts" / part.folder for part in parts}
    selected = {part.name: {"part_column": args.split_column, "part_values": part.values} for part in parts}
    for part in parts:
        folder = folders[part.name]
        config = options | selected[part.name] | {"output_dir": str(folder)}
        unlearn = stage(run, f"unlearn-{part.folder}", "unlearn", config, folder / "done", launch_with=args.launch_with)
        stages.append(unlearn)
        if measuring is not None:
            config = config_of(data, measuring) | selected[part.name]
            config |= {"model_name_or_path": str(folder / "model"), "output": str(folder / "measurement.json")}
            stages.append(
                stage(run, f"before-{part.folder}", "measure", config, folder / "measurement.json", after=unlearn.name)
            )
    work(stages, run, args.jobs)

    # Merge
    model = run.folder / "model"
    metrics = merge(args, data, policy, [folder / "model" for folder in folders.values()], model)

    # Measure the merged model on each part, and on all of them
    after = {part.name: run.folder / "after" / f"{part.folder}.json" for part in parts}
    if measuring is not None:
        whole = run.folder / "measurement.json"
        config = config_of(data, measuring) | {"model_name_or_path": str(model)}
        stages = [stage(run, "merged", "measure", config | {"output": str(whole)}, whole, reads=model)]
        for part in parts:
            made = after[part.name]
            of_part = config | selected[part.name] | {"output": str(made)}
            stages.append(stage(run, f"after-{part.folder}", "measure", of_part, made, reads=model))
        work(stages, run, args.jobs)
        metrics |= measured(whole)
        if control is not None and chosen is not None:
            metrics |= beside_control(read_measurement(whole), control, chosen.metrics, chosen.options)

    # Compare
    rows: list[ResultRow] = []
    for part in parts:
        (row,) = read_results(folders[part.name] / "results.json")
        metrics_before = row["metrics"] | (measured(folders[part.name] / "measurement.json") if measuring else {})
        rows.append({**row, "method": method, "metrics": metrics_before, "part": part.name, "stage": "before"})
    peaks = [row["peak_memory_bytes"] for row in rows if row["peak_memory_bytes"] is not None]
    vain = {row["part"]: row["nothing_learnt"] for row in rows if "nothing_learnt" in row}
    merged: ResultRow = {
        "method": method,
        "mask": rows[0]["mask"],
        "seed": training.seed,
        "model": str(model),
        "metrics": {"updates": sum(row["metrics"]["updates"] for row in rows)} | metrics,
        "seconds": sum(row["seconds"] or 0.0 for row in rows),
        "peak_memory_bytes": max(peaks, default=None),
    }
    if measuring is not None:
        rows += [{**merged, "metrics": measured(after[p.name]), "part": p.name, "stage": "after"} for p in parts]
    write_results(run.results_path, [*rows, merged])
    run.mark_done()
    show(rows, merged, shown_columns(None if chosen is None else chosen.metrics))
    print(f"The merged model is in {model}, and the rows are in {run.results_path}.")
    if vain:
        said = "; ".join(f"{part}: {reason.rstrip('.')}" for part, reason in vain.items())
        print(f"WARNING: nothing has been forgotten of {len(vain)} of {len(parts)} parts ({said}).")


def measure_options(
    args: SpungeArguments, unlearning: UnlearnOptions, owners: list[str]
) -> tuple[MeasureArguments, Chosen]:
    """How the models are measured, and by which metrics, once it is known that the judges know the owners."""
    judges, rewarding = unlearning.judges, unlearning.rewarding
    words = ["--model_name_or_path", unlearning.policy.model_name_or_path]
    if args.measure_config is not None:
        if not Path(args.measure_config).is_file():
            raise ValueError(f"measure_config {args.measure_config} does not exist: name a YAML of `dareu measure`.")
        words += ["--config", args.measure_config]
    found: MeasureArguments = OptionParser((DataArguments, MeasureArguments)).parse_args_and_config(words)[1]
    if found.reward_judge is None and rewarding is not None and not rewarding.plugs_in_classifier():
        found.reward_judge = rewarding.classifier or None
    found.test_judge = found.test_judge or judges.test_judge
    found.base_model = found.base_model or judges.base_model
    check_judges(
        reward_judge=found.reward_judge,
        validation_judge=found.validation_judge or judges.validation_judge,
        test_judge=found.test_judge,
    )
    chosen = chosen_metrics(found)
    for judge in (found.reward_judge, found.validation_judge, found.test_judge):
        if judge:
            owner_columns(load_classifier(judge), owners)
    if found.retrained is not None:
        control = read_measurement(found.retrained)
        beside_control(control, control, chosen.metrics, chosen.options)  # has what it needs
    return found, chosen


def leave_control_out(measuring: MeasureArguments, chosen: Chosen) -> None:
    """Measures without the retrained control, and without the metrics that ask for it."""
    measuring.retrained = None
    if measuring.metrics is not None:
        measuring.metrics = [name for name in measuring.metrics if not compares(chosen.needs[name])]
        measuring.metric_kwargs = {name: chosen.options[name] for name in measuring.metrics if name in chosen.options}


def stage(
    run: Run,
    name: str,
    recipe: str,
    config: dict[str, Any],
    made: Path,
    *,
    after: str = "",
    reads: Path | None = None,
    launch_with: str | None = None,
) -> Stage:
    """A stage that runs a recipe with a config of its own, which is written."""
    file = run.folder / "configs" / f"{name}.yaml"
    write_yaml(file, config)
    launcher = () if launch_with is None else ("--accelerate_config", launch_with)
    command = (recipe, *launcher, "--config", str(file))
    place = Path(config["output_dir"]) if "output_dir" in config else None
    return Stage(name, (after,) if after else (), (command,), [file, reads], (made,), recipe, place)


def work(stages: list[Stage], run: Run, jobs: int) -> None:
    """Runs stages, and stops where one fails, after those that do not need it."""
    failed = run_stages(stages, run.folder / "logs", jobs)
    if failed:
        raise ValueError(next(iter(failed.values())))


def merge(
    args: SpungeArguments,
    data: DataArguments,
    policy: PolicyArguments,
    parts: list[Path],
    output: Path,
) -> dict[str, float]:
    """Writes the merged model; what is known of it without measuring."""
    # The target may be an adapter, a hub id or in another dtype than what was trained: saved as it was trained from
    with tempfile.TemporaryDirectory(prefix=".tmp-start-", dir=output.parent) as start:
        dtype = getattr(torch, policy.dtype)
        tokenizer = load_tokenizer(policy.model_name_or_path, pad_token=data.pad_token)
        model = load_model(policy.model_name_or_path, dtype=dtype)
        list_end_ids(model, tokenizer)
        model.save_pretrained(start)
        tokenizer.save_pretrained(start)
        if output.exists():  # of a start that was cut short
            shutil.rmtree(output)
        method: Any = args.merge_method
        numbers: dict[str, Any] = {"density": args.merge_density, "weight": args.merge_weight, "seed": args.merge_seed}
        done = merge_models(start, parts, output, method, **numbers)
        print(f"Merged: {done.moved:,} of {done.entries:,} weights are not the target's.\n")
        if policy.mask is None:
            return {}
        mask = WeightMask.load(policy.mask)
        moved = count_moved_outside(saved_for(mask, start, dtype), saved_for(mask, output, dtype), mask)
        if moved:
            raise RuntimeError("Weights outside the mask moved: this is a fault of dareu, please report it.")
        return {"moved_outside_mask": moved}


def measured(path: Path) -> dict[str, float]:
    """The numbers of a measurement.json."""
    return dict(read_measurement(path)["metrics"])


def show(rows: list[ResultRow], merged: ResultRow, columns: list[str]) -> None:
    """Prints each part before and after the merge, and the merged model on all rows to forget."""
    names = [name for name in columns if any(name in row["metrics"] for row in (*rows, merged))]
    table = Table("part", "merge", *(name.replace("_", "\n") for name in names), "seconds", title="Parts")
    for row in (*sorted(rows, key=lambda row: row["part"]), merged):
        metrics = [f"{row['metrics'][name]:.2f}" if name in row["metrics"] else "" for name in names]
        stage = row.get("stage", "after")
        # What the parts took together stands in the last line
        took = "" if stage == "after" and row is not merged else f"{row['seconds']:.0f}"
        table.add_row(row.get("part", "all"), stage, *metrics, took)
    plain_console(200).print(table)


if __name__ == "__main__":
    run_program(main, "spunge")
