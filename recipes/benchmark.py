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
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from trl import TrlParser

from dareu.data.parts import DataArguments, forget_names, load_parts, split_owners
from dareu.files import content_hash, write_yaml
from dareu.methods import METHODS
from dareu.metrics import tow
from dareu.options import as_mapping
from dareu.plans import OWN, Plan
from dareu.plugins import resolve
from dareu.report import comparison_table, draw_tradeoff, summarise, write_csv, write_markdown
from dareu.report.picture import can_draw
from dareu.runs import ResultRow, config_of, open_run, read_results, write_results
from dareu.trainers import UnlearnConfig
from dareu.trainers.forget_tensors import needed_tensors
from dareu.trainers.unlearning import UnlearningArguments
from dareu.tuning import draw_trials, settings_grid, validation_score
from dareu.unlearn_options import unlearn_parser

logger = logging.getLogger("dareu.benchmark")

CONFIGS = Path(__file__).parent / "configs"

#: What the runs share, and the options that name each where a config does.
ROLES = ("base", "target", "retrained", "classifier", "validation_judge", "test_judge")

#: What an entry of `methods` says beside options of its method.
ENTRY_KEYS = ("name", "method", "config", "masks")


#: What the table shows by default.
SHOWN = (
    "tow",
    "forget_rouge",
    "retain_rouge",
    "forget_probability",
    "retain_probability",
    "fact_recall",
    "name_kept",
    "forget_attribution_heldout_stripped",
    "misattribution",
    "updates",
    "seconds",
)


@dataclass
class BenchmarkArguments:
    """What is compared."""

    output_dir: str = field(metadata={"help": "Where the results go."})
    methods: list[Any] = field(
        metadata={
            "help": "Entries in YAML: {name, method, config, masks} and any option of `dareu unlearn`, of which a list "
            "makes a grid. name: default the method; config: a file of configs, default the method's."
        }
    )
    configs: str = field(
        default="fictional",
        metadata={"help": "Folder with target.yaml, classifier.yaml, … and a YAML a method; of dareu's or a path."},
    )
    masks: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Names to options of `dareu attribute_weights`: {wagle: {score: wagle, density: 0.5}}."},
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Every row is run with each."})
    vary_world: bool = field(default=False, metadata={"help": "The fictional world's seed goes with the seed."})
    given: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": f"Folders or hub ids of what is there already, by its role: {', '.join(ROLES)}."},
    )
    tune: int = field(
        default=0,
        metadata={
            "help": "Trials a method, of its grid; chosen on one half of everybody's rows, reported on the other. "
            "0: each setting is a row."
        },
    )
    tune_seed: int = field(default=0, metadata={"help": "Of the draw of trials, where a grid holds more."})
    metrics: list[str] = field(
        default_factory=lambda: list(SHOWN), metadata={"help": "What the table shows; results.json has all."}
    )
    stages_dir: str | None = field(
        default=None, metadata={"help": "Where stages are kept and found again; default: OUTPUT_DIR/stages."}
    )
    accelerate_config: str | None = field(
        default=None, metadata={"help": "The launcher's config for unlearning: a name such as fsdp2, or a file."}
    )
    jobs: int = field(default=2, metadata={"help": "Stages run at a time, each with OMP_NUM_THREADS or one thread."})

    def __post_init__(self) -> None:
        for name in ("seeds", "methods", "metrics"):
            value = getattr(self, name)
            if not isinstance(value, list) or not value:
                raise ValueError(f"{name} is {value!r}: give a list of at least one.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}: give each once.")
        for name in ("masks", "given"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} is {getattr(self, name)!r}: give a mapping in YAML.")
        if self.tune < 0 or self.jobs < 1:
            raise ValueError(f"tune is {self.tune} and jobs {self.jobs}: give 0 or more trials, and at least one job.")


class Entry(NamedTuple):
    """One method of the comparison."""

    name: str
    method: str
    config: Path
    masks: list[str]
    settings: list[dict[str, Any]]
    """Options over those of the config; several where there is a grid."""


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
    data, args = TrlParser((DataArguments, BenchmarkArguments)).parse_args_and_config()
    if args.vary_world and data.dataset != "fictional":
        raise ValueError(f"vary_world belongs to the fictional world, and dataset is {data.dataset}: leave it out.")
    configs = Path(args.configs) if Path(args.configs).is_dir() else CONFIGS / args.configs
    if not configs.is_dir():
        raise ValueError(
            f"configs is {args.configs!r}: give a folder, or one of {', '.join(sorted(os.listdir(CONFIGS)))}."
        )
    if unknown := [role for role in args.given if role not in ROLES]:
        raise ValueError(f"given names {unknown[0]!r}: the roles are {', '.join(ROLES)}.")
    entries = read_entries(args, configs)
    content = [Path(name) for name in (data.dataset, data.test_dataset, *args.given.values()) if name]
    content = [path for path in content if path.exists()]
    plan = Plan(Path(args.stages_dir or Path(args.output_dir) / "stages"), content_hash(content))
    rows = [row for seed in args.seeds for row in plan_seed(plan, data, args, configs, entries, seed)]

    # Everything that can be wrong was looked at before anything is written
    run = open_run(args.output_dir, config_of(data, args))
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


def read_entries(args: BenchmarkArguments, configs: Path) -> list[Entry]:
    """The methods to compare, with what each may not be."""
    entries: list[Entry] = []
    for given in args.methods:
        given = {"method": given} if isinstance(given, str) else given
        if not isinstance(given, dict) or "method" not in given:
            raise ValueError(f"An entry of methods is {given!r}: give its method, one of {', '.join(METHODS)}.")
        method, name = str(given["method"]), str(given.get("name", given["method"]))
        resolve(method, METHODS)
        if name in [entry.name for entry in entries] or name in ("target", "retrained"):
            raise ValueError(f"Two entries are called {name!r}: give each a name of its own.")
        config = configs / given.get("config", f"{method}.yaml")
        if not config.is_file():
            raise ValueError(f"The entry {name!r} has no config {config}: name a file of {configs} as config.")
        masks = given.get("masks", ["dense"])
        if unknown := [mask for mask in masks if mask != "dense" and mask not in args.masks]:
            raise ValueError(f"The entry {name!r} names the mask {unknown[0]!r}: give it under masks, or 'dense'.")
        grid = settings_grid({key: value for key, value in given.items() if key not in ENTRY_KEYS})
        settings = draw_trials(name, grid, args.tune, args.tune_seed) if args.tune else grid
        entries.append(Entry(name, method, config, masks, settings))
    return entries


def plan_seed(
    plan: Plan, data: DataArguments, args: BenchmarkArguments, configs: Path, entries: list[Entry], seed: int
) -> list[Row]:
    """Adds the stages of one seed; its rows, target and retrained control first."""
    if args.vary_world:
        data = dataclasses.replace(data, world_seed=seed)
    everyone = load_parts(data).owners
    split_owners(data, everyone)  # refuses unknown owners
    owners = forget_names(data, everyone)
    asked = config_of(dataclasses.replace(data, forget_owners=owners))
    of_all = config_of(dataclasses.replace(data, forget_owners=None, num_forget=DataArguments.num_forget))
    usual = config_of(DataArguments())

    def options_of(config: Path, rows: dict[str, Any], **more: Any) -> dict[str, Any]:
        """What a config says, about these rows; options of the data that are as usual go unsaid."""
        said = settings_of(config)
        return {**said, **{key: value for key, value in rows.items() if key in said or value != usual[key]}, **more}

    roles: dict[str, str] = {role: str(path) for role, path in args.given.items()}
    made: dict[str, Path] = {}

    def make(role: str, recipe: str, result: str, options: dict[str, Any], *after: str) -> None:
        if role in roles:
            return
        own = role != "base" and ("seed" in options or args.vary_world)
        name = f"{role}-seed{seed}" if own else role
        builds_on = [made[other] for other in after if other in made]
        made[role] = plan.add(name, [([recipe], {**options, "output_dir": OWN})], *builds_on, makes="done", kind=role)
        roles[role] = str(made[role] / result)

    # What is shared
    if "base" not in roles:
        make("base", "finetune", "model", options_of(configs / "base.yaml", of_all))
    target = options_of(configs / "target.yaml", of_all, seed=seed, model_name_or_path=roles["base"])
    make("target", "finetune", "model", target, "base")
    make("retrained", "finetune", "model", {**target, "exclude_owners": owners}, "base")
    for role in ("classifier", "validation_judge", "test_judge"):
        options = options_of(configs / f"{role}.yaml", of_all)
        if options.get("classifier", "llm") == "llm":
            kwargs = options.get("classifier_kwargs", {})
            options |= {"seed": seed, "classifier_kwargs": {**kwargs, "model": roles["base"]}}
        make(role, "train_classifier", "classifier", options, "base")
    for name, settings in args.masks.items():
        options = options_of(configs / "mask.yaml", asked, seed=seed, model_name_or_path=roles["target"]) | settings
        make(f"mask-{name}", "attribute_weights", "mask.safetensors", options, "target")

    # What is measured of each model: everything, or where there are trials, the halves apart
    measure = options_of(configs / "measure.yaml", asked, test_judge=roles["test_judge"])
    measure |= {"reward_judge": roles["classifier"], "model_name_or_path": f"{OWN}/model"}
    if "base_model" in measure:
        measure["base_model"] = roles["base"]
    measures = [measure]
    if args.tune:
        chosen_by = {**measure, "fold": VALIDATION, "output": f"{OWN}/validation/measurement.json"}
        del chosen_by["test_judge"]
        measures = [{**chosen_by, "validation_judge": roles["validation_judge"]}, {**measure, "fold": REPORT}]
    judged = [made[role] for role in ("classifier", "validation_judge", "test_judge") if role in made]
    rows = []
    for name in ("target", "retrained"):
        of = {"model_name_or_path": roles[name]}
        each = [{**options, **of, "output": options.get("output", f"{OWN}/measurement.json")} for options in measures]
        commands = [(["measure"], options) for options in each]
        folders = [made[name]] if name in made else []
        measured = plan.add(
            f"measure-{name}-seed{seed}", commands, *folders, *judged, makes="measurement.json", kind="measure"
        )
        rows.append(Row(name, None, seed, 0, measured, roles[name]))

    # The runs
    launcher = ["--accelerate_config", args.accelerate_config] if args.accelerate_config else []
    for entry in entries:
        for mask in entry.masks:
            for number, settings in enumerate(entry.settings):
                options = options_of(entry.config, asked, seed=seed, model_name_or_path=roles["target"])
                for option, role in (("base_model", "base"), *((role, role) for role in ROLES[3:])):
                    if option in options:
                        options[option] = roles[role]
                options.pop("mask", None)
                if mask != "dense":
                    options["mask"] = roles[f"mask-{mask}"]
                options |= {"method": entry.method, "output_dir": OWN, **settings}
                if seed == args.seeds[0]:
                    check_options(entry, options)
                folders = [made[role] for role in ("target", f"mask-{mask}") if role in made]
                commands = [([*["unlearn"], *launcher], options), *((["measure"], each) for each in measures)]
                label = f"{entry.name}-{mask}" + "".join(f"-{value}" for value in told(entry, settings).values())
                folder = plan.add(f"{label}-seed{seed}", commands, *folders, *judged, makes="done", kind=entry.name)
                name = entry.name
                if not args.tune:
                    name += "".join(f" {key}={value}" for key, value in told(entry, settings).items())
                under = None if mask == "dense" else mask
                rows.append(Row(name, under, seed, number, folder, str(folder / "model")))
    return rows


def told(entry: Entry, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that tell one of the grid from another."""
    return {key: value for key, value in settings.items() if any(other[key] != value for other in entry.settings)}


def settings_of(config: Path) -> dict[str, Any]:
    if not config.is_file():
        raise ValueError(f"There is no config {config}: write it, or give the model or judge it would make as given.")
    return dict(yaml.safe_load(config.read_text(encoding="utf-8")))


def check_options(entry: Entry, options: dict[str, Any]) -> None:
    """Refuses what `dareu unlearn` would refuse of these options."""
    method, environment = resolve(entry.method, METHODS), dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        write_yaml(file, options)
        try:
            parsed = unlearn_parser(method).parse_args_and_config(["--config", str(file)])
            training = next(part for part in parsed if isinstance(part, UnlearningArguments))
            training.check()
            if isinstance(training, UnlearnConfig):
                kwargs = as_mapping("loss_kwargs", training.loss_kwargs)
                needed_tensors(method.loss, kwargs, method.trainer.tensors)
        except ValueError as error:
            raise ValueError(f"The entry {entry.name!r}: {error}") from error
        finally:  # options of training speak to accelerate through the environment
            os.environ.clear()
            os.environ.update(environment)


def collect(rows: list[Row], *, tuned: bool) -> list[ResultRow]:
    """What was measured, with ToW beside the control of the same seed; of trials the chosen one, then all of them."""
    controls = {row.seed: row for row in rows if row.name == "retrained"}
    scores: dict[tuple[str, str | None, int], list[float]] = {}
    found = []
    for row in rows:
        metrics = measured(row.folder / "measurement.json")
        result: ResultRow = {
            "method": row.name,
            "mask": row.mask,
            "seed": row.seed,
            "model": row.model,
            "metrics": metrics,
            "seconds": None,
            "peak_memory_bytes": None,
        }
        if row.name not in ("target", "retrained"):
            (ran,) = read_results(row.folder / "results.json")
            metrics = {**ran["metrics"], **metrics}
            result |= {"seconds": ran["seconds"], "peak_memory_bytes": ran["peak_memory_bytes"], "metrics": metrics}
        if row.seed in controls:
            metrics["tow"] = tow(metrics, measured(controls[row.seed].folder / "measurement.json"))
        if tuned and row.name not in ("target", "retrained") and row.seed in controls:
            before = measured(row.folder / "validation" / "measurement.json")
            control = measured(controls[row.seed].folder / "validation" / "measurement.json")
            metrics["validation_score"] = validation_score({**before, "tow": tow(before, control)}, control)
            scores.setdefault((row.name, row.mask, row.setting), []).append(metrics["validation_score"])
        found.append((row, result))
    if not tuned:
        return [result for _, result in found]
    best: dict[tuple[str, str | None], int] = {}
    for (name, mask, setting), values in scores.items():
        others = scores.get((name, mask, best.get((name, mask), setting)), values)
        if (name, mask) not in best or sum(values) / len(values) > sum(others) / len(others):
            best[name, mask] = setting
    chosen = [result for row, result in found if best.get((row.name, row.mask), 0) == row.setting]
    trials: list[ResultRow] = [
        {**result, "trial": row.setting} for row, result in found if row.name not in ("target", "retrained")
    ]
    return [*chosen, *trials]


def measured(path: Path) -> dict[str, float]:
    """The metrics in a measurement.json."""
    return dict(json.loads(path.read_text(encoding="utf-8"))["metrics"])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except ValueError as error:
        sys.exit(f"benchmark: {error}")
