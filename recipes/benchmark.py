"""Compares methods, masks and seeds from one YAML: models, judges, masks, unlearning, measures, tables and a picture.

    dareu benchmark --config recipes/configs/fictional/benchmark.yaml

Every stage is one of the other recipes in a process of its own. Started again after a kill at any moment, it does only
what is missing; stages are shared with every other benchmark of the same STAGES_DIR. Results are in OUTPUT_DIR:
results.json, results.csv, table.md and tradeoff.png.
"""

import dataclasses
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from trl import TrlParser

from dareu.comparison.entries import Entry, read_entries, told
from dareu.comparison.tuning import best_setting, validation_score
from dareu.data import take_fold
from dareu.data.parts import DataArguments, forget_names, load_parts, split_owners
from dareu.files import content_hash
from dareu.methods.rmu import RMUConfig
from dareu.metrics import against_retrained
from dareu.models import resolve_model_path
from dareu.options.benchmark import JUDGES, BenchmarkArguments
from dareu.options.checking import check_recipe
from dareu.options.finetune import FinetuneArguments
from dareu.options.spunge import SpungeArguments
from dareu.report import comparison_table, draw_tradeoff, summarise, write_csv, write_markdown
from dareu.report.picture import can_draw
from dareu.runs import ResultRow, config_of, open_run, read_measurement, read_results, write_results
from dareu.runs.plans import CONFIG, OWN, Plan
from dareu.runs.program import run_program
from dareu.spunge import split_forget

logger = logging.getLogger("dareu.benchmark")

CONFIGS = Path(__file__).parent / "configs"


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


#: Halves of each owner's rows where there are trials.
VALIDATION, REPORT = "0/2", "1/2"


def main() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("benchmark is one process that starts others: name the config of those as launch_with.")
    data, args = TrlParser((DataArguments, BenchmarkArguments)).parse_args_and_config()
    if args.vary_world and data.dataset != "fictional":
        raise ValueError(f"vary_world belongs to the fictional world, and dataset is {data.dataset}: leave it out.")
    configs = Path(args.configs) if Path(args.configs).is_dir() else CONFIGS / args.configs
    if not configs.is_dir():
        shipped = ", ".join(sorted(path.name for path in CONFIGS.iterdir()))
        raise ValueError(f"configs is {args.configs!r}: give a folder, or one of {shipped}.")
    entries = read_entries(args.methods, args.masks, configs, trials=args.tune, seed=args.tune_seed)
    if unused := set(args.masks).difference(*(entry.masks for entry in entries)):
        raise ValueError(f"No entry has the mask {min(unused)!r} among its masks: name it there, or leave it out.")
    content = [Path(str(name)) for name in (data.dataset, data.test_dataset, *args.given.values()) if name]
    content = [path for path in content if path.exists()]
    plan = Plan(Path(args.stages_dir or Path(args.output_dir) / "stages"), content_hash(content))
    rows = [row for seed in args.seeds for row in plan_seed(plan, data, args, configs, entries, seed)]

    # Everything that can be wrong was looked at before anything is written
    config = config_of(data, args)
    run = open_run(args.output_dir, config, free=list(config))  # the stages know what each was made of
    start = time.perf_counter()
    logger.info("%d models from %d stages in %s.", len(rows), len(plan.stages), plan.folder)
    failed = plan.run(args.jobs)

    # Compare
    results = collect([row for row in rows if row.folder.name not in failed], tuned=bool(args.tune))
    write_results(run.results_path, results)
    write_csv(run.folder / "results.csv", results)
    summaries = summarise(results)
    table = comparison_table(summaries, args.metrics)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    write_markdown(run.folder / "table.md", table)
    if not can_draw():
        logger.warning("No picture, for matplotlib is not installed: pip install 'dareu[plots]'.")
    elif {"target", "retrained"} <= {summary.method for summary in summaries}:
        draw_tradeoff(run.folder / "tradeoff.png", summaries)
    print(f"The results are in {run.folder}. It took {(time.perf_counter() - start) / 60:.1f} minutes.")
    if failed:
        print(f"\n{len(failed)} of {len(plan.stages)} stages failed:\n\n" + "\n\n".join(failed.values()))
        sys.exit(1)
    run.mark_done()


class Ground:
    """What the runs of one seed stand on: models, judges and masks by role, made where they are not given."""

    def __init__(self, plan: Plan, data: DataArguments, args: BenchmarkArguments, configs: Path, seed: int) -> None:
        self.plan, self.args, self.configs, self.seed = plan, args, configs, seed
        parts = load_parts(data)
        split, self.owners = split_owners(data, parts.owners), forget_names(data, parts.owners)
        if parts.test is None:
            raise ValueError(f"{data.dataset} has no test rows: name a file of them as test_dataset.")
        self.forget = split.forget
        for rows in (*split, parts.test) if args.tune else ():
            if not all(map(len, take_fold(rows, VALIDATION))):
                raise ValueError("tune parts each owner's rows in halves, and some have one row each: leave tune out.")
        # Whoever asks to be forgotten is nothing to what is trained on everybody
        self.everyone = dataclasses.replace(data, forget_owners=None, num_forget=DataArguments.num_forget)
        self.asked = dataclasses.replace(data, forget_owners=self.owners)
        self.made: dict[str, Path] = {}

    def name(self, role: str) -> str:
        """The path or hub id of what plays a role; adds the stage that makes it, where it is not given."""
        if role in self.args.given:
            return str(self.args.given[role])
        if role not in self.made:
            self._make(role)
        result = {"base": "model", "target": "model", "retrained": "model"}.get(role, "classifier")
        return str(self.made[role] / ("mask.safetensors" if role.startswith("mask-") else result))

    def of(self, *roles: str) -> list[Path]:
        """The folders of those that are made."""
        return [self.made[role] for role in roles if role in self.made]

    def options(self, config: Path, data: DataArguments, **more: Any) -> dict[str, Any]:
        """What a config says, about the benchmark's rows; options of the data that are as usual go unsaid."""
        if not config.is_file():
            raise ValueError(f"There is no config {config}: write it, or give what it would make.")
        said = dict(yaml.safe_load(config.read_text(encoding="utf-8")))
        usual = config_of(DataArguments())
        rows = {name: value for name, value in config_of(data).items() if name in said or value != usual[name]}
        return said | rows | more

    def _make(self, role: str) -> None:
        after: tuple[str, ...] = ("base",)
        if role == "base":
            recipe, options, after = "finetune", self.options(self.configs / "base.yaml", self.everyone), ()
            if self.everyone.dataset == "fictional":  # a base model has read the background, and none of the owners
                options["dataset"] = "fictional-background"
        elif role in ("target", "retrained"):
            more = {"seed": self.seed, "model_name_or_path": self.name("base")}
            recipe, options = "finetune", self.options(self.configs / "target.yaml", self.everyone, **more)
            options |= {"exclude_owners": self.owners} if role == "retrained" else {}
        elif role in JUDGES:
            recipe, options = "train_classifier", self.options(self.configs / f"{role}.yaml", self.everyone)
            kwargs = options.get("classifier_kwargs", {})
            if options.get("classifier", "llm") == "llm":
                options |= {"seed": self.seed}
                if kwargs.get("model", "fictional-base") == self.base_in_configs():
                    options |= {"classifier_kwargs": {**kwargs, "model": self.name("base")}}
        else:
            more = {"seed": self.seed, "model_name_or_path": self.name("target")}
            recipe, options = "attribute_weights", self.options(self.configs / "mask.yaml", self.asked, **more)
            options |= self.args.masks[role.removeprefix("mask-")]
            after = ("target",)
            if isinstance(options["density"], list) and len(options["density"]) > 1:
                raise ValueError(f"The mask {role.removeprefix('mask-')!r} has several densities: name a mask of each.")
        check(role, recipe, options | {"output_dir": "-"})
        own = role != "base" and ("seed" in options or self.args.vary_world)
        name = f"{role}-seed{self.seed}" if own else role
        commands = [([recipe], {**options, "output_dir": OWN})]
        self.made[role] = self.plan.add(name, commands, *self.of(*after), makes="done", kind=role)

    def base_in_configs(self) -> str | None:
        """The model that the configs call their base, for which the benchmark's own stands in."""
        config = self.configs / "target.yaml"
        if not config.is_file():
            return None
        name: str = yaml.safe_load(config.read_text(encoding="utf-8")).get("model_name_or_path", "fictional-base")
        return name

    def num_layers(self) -> int | None:
        """Layers of the models, where that can be told without asking a hub."""
        for role in ("base", "target"):
            if role in self.args.given and Path(name := resolve_model_path(self.name(role))).is_dir():
                config = Path(name) / "config.json"
                found = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
                return found.get("num_hidden_layers")
        if "base" in self.made:
            shape = self.options(self.configs / "base.yaml", self.everyone)
            return int(shape.get("num_hidden_layers", FinetuneArguments.num_hidden_layers))
        return None


def plan_seed(
    plan: Plan, data: DataArguments, args: BenchmarkArguments, configs: Path, entries: list[Entry], seed: int
) -> list[Row]:
    """Adds the stages of one seed; its rows, target and retrained control first."""
    if args.vary_world:
        data = dataclasses.replace(data, world_seed=seed)
    ground = Ground(plan, data, args, configs, seed)
    models = {name: ground.name(name) for name in ("target", "retrained")}
    measures = measures_of(ground)
    rows = []
    for name, model in models.items():
        own = {"model_name_or_path": model}
        commands = [(["measure"], {"output": f"{OWN}/measurement.json", **options, **own}) for options in measures]
        after = ground.of("base", name, *JUDGES)
        folder = plan.add(f"measure-{name}-seed{seed}", commands, *after, makes="measurement.json", kind="measure")
        rows.append(Row(name, None, seed, 0, folder, model))
    return rows + [row for entry in entries for row in plan_entry(ground, entry, measures)]


def measures_of(ground: Ground) -> list[dict[str, Any]]:
    """What is measured of each model: all rows, or where there are trials, the halves apart."""
    measure = ground.options(ground.configs / "measure.yaml", ground.asked, model_name_or_path=f"{OWN}/model")
    measure |= {"test_judge": ground.name("test_judge"), "reward_judge": ground.name("classifier")}
    if "base_model" in measure:
        measure["base_model"] = ground.name("base")
    check("measure", "measure", measure)
    if not ground.args.tune:
        return [measure]
    chosen_by = {**measure, "fold": VALIDATION, "output": f"{OWN}/validation/measurement.json"}
    del chosen_by["test_judge"]
    return [{**chosen_by, "validation_judge": ground.name("validation_judge")}, {**measure, "fold": REPORT}]


def plan_entry(ground: Ground, entry: Entry, measures: list[dict[str, Any]]) -> list[Row]:
    """Adds the runs of one method for one seed, each with its measures."""
    rows, args, seed = [], ground.args, ground.seed
    launcher = ["--accelerate_config", args.launch_with] if args.launch_with and entry.recipe == "unlearn" else []
    for mask in entry.masks:
        for number, settings in enumerate(entry.settings):
            options = ground.options(entry.config, ground.asked, method=entry.method, seed=seed, output_dir=OWN)
            options |= {role: ground.name(role) for role in JUDGES if role in options}
            options |= {"base_model": ground.name("base")} if "base_model" in options else {}
            options |= {"model_name_or_path": ground.name("target")}
            options |= {"mask": None if mask == "dense" else ground.name(f"mask-{mask}")}
            if entry.recipe == "spunge":
                options |= {"measure_parts": not args.tune, "launch_with": args.launch_with, **settings}
                if options["measure_parts"]:  # as the merged model is
                    options.setdefault("measure_config", f"{CONFIG}.1.yaml")
            options |= settings
            if seed == args.seeds[0]:
                check_entry(ground, entry, options)
            commands = [([entry.recipe, *launcher], options), *((["measure"], measure) for measure in measures)]
            values = "".join(f"-{value}" for value in told(entry, settings).values())
            label = f"{entry.name}-{mask}{values}-seed{seed}"
            after = ground.of("base", "target", f"mask-{mask}", *JUDGES)
            folder = ground.plan.add(label, commands, *after, makes="done", kind=entry.name)
            said = "" if args.tune else "".join(f" {key}={value}" for key, value in told(entry, settings).items())
            under = None if mask == "dense" else mask
            rows.append(Row(entry.name + said, under, seed, number, folder, str(folder / "model")))
    return rows


def check_entry(ground: Ground, entry: Entry, options: dict[str, Any]) -> None:
    """Refuses what the recipe would refuse of an entry, before anything is trained for it."""
    what = f"The entry {entry.name!r}"
    parsed = check(what, entry.recipe, options)
    try:
        for part in parsed:
            layers = ground.num_layers() if isinstance(part, RMUConfig) else None
            if isinstance(part, RMUConfig) and layers is not None and part.layer >= layers:
                raise ValueError(f"layer is {part.layer}, but the model has {layers}: give 0 to {layers - 1}.")
            if isinstance(part, SpungeArguments):
                groups: Any = part.split_map
                split_forget(ground.forget, part.split_column, groups, minimum=part.min_part_rows)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def check(what: str, recipe: str, options: dict[str, Any]) -> list[Any]:
    """What a recipe makes of options; its complaint names what they are of."""
    try:
        return check_recipe(recipe, options)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def collect(rows: list[Row], *, tuned: bool) -> list[ResultRow]:
    """What was measured, with ToW beside the control of the same seed; of trials the chosen one, then all of them."""
    controls = {row.seed: row.folder for row in rows if row.name == "retrained"}
    found: list[ResultRow] = []
    trials: list[ResultRow] = []
    scores: dict[tuple[str, str | None], dict[int, list[float]]] = {}
    for row in rows:
        metrics = dict(read_measurement(row.folder / "measurement.json")["metrics"])
        if row.seed in controls:
            control = read_measurement(controls[row.seed] / "measurement.json")["metrics"]
            metrics |= against_retrained(metrics, control)
        result: ResultRow = {
            "method": row.name,
            "mask": row.mask,
            "seed": row.seed,
            "model": row.model,
            "metrics": metrics,
            "seconds": None,
            "peak_memory_bytes": None,
        }
        if row.name in ("target", "retrained"):
            found.append(result)
            continue
        ran, *parts = sorted(read_results(row.folder / "results.json"), key=lambda each: "part" in each)
        result |= {"seconds": ran["seconds"], "peak_memory_bytes": ran["peak_memory_bytes"]}
        result["metrics"] = {**ran["metrics"], **metrics}
        if not tuned:
            found += [{**part, "method": row.name, "mask": row.mask} for part in parts]
            found.append(result)
        elif row.seed in controls:
            before = read_measurement(row.folder / "validation" / "measurement.json")["metrics"]
            control = read_measurement(controls[row.seed] / "validation" / "measurement.json")["metrics"]
            score = validation_score({**before, **against_retrained(before, control)}, control)
            result["metrics"]["validation_score"] = score
            scores.setdefault((row.name, row.mask), {}).setdefault(row.setting, []).append(score)
            trials.append({**result, "trial": row.setting})
    for trial in trials:
        if trial["trial"] == best_setting(scores[trial["method"], trial["mask"]]):
            chosen = trial.copy()
            del chosen["trial"]
            found.append(chosen)
    return [*found, *trials]


if __name__ == "__main__":
    run_program(main, "benchmark")
