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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from trl import TrlParser

from dareu.data.parts import DataArguments, forget_names, load_parts, split_owners
from dareu.entries import Entry, check_options, read_entries, told
from dareu.files import content_hash
from dareu.metrics import tow
from dareu.plans import OWN, Plan
from dareu.report import comparison_table, draw_tradeoff, summarise, write_csv, write_markdown
from dareu.report.picture import can_draw
from dareu.runs import ResultRow, config_of, open_run, read_results, write_results
from dareu.tuning import best_setting, validation_score

logger = logging.getLogger("dareu.benchmark")

CONFIGS = Path(__file__).parent / "configs"

#: What the runs share, and the options that name each where a config does.
ROLES = ("base", "target", "retrained", "classifier", "validation_judge", "test_judge")

JUDGES = ("classifier", "validation_judge", "test_judge")

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
            "makes a grid; with split_column, of `dareu spunge`. name: default the method; config: a file of configs, "
            "default the method's."
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
    launch_with: str | None = field(
        default=None,
        metadata={"help": "The accelerate config that unlearning is launched with: a name such as fsdp2, or a file."},
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
        if "dense" in self.masks:
            raise ValueError("masks names 'dense', which is training without a mask: give it another name.")
        if self.tune < 0 or self.jobs < 1:
            raise ValueError(f"tune is {self.tune} and jobs {self.jobs}: give 0 or more trials, and at least one job.")


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
        raise ValueError(
            f"configs is {args.configs!r}: give a folder, or one of {', '.join(sorted(os.listdir(CONFIGS)))}."
        )
    if unknown := [role for role in args.given if role not in ROLES]:
        raise ValueError(f"given names {unknown[0]!r}: the roles are {', '.join(ROLES)}.")
    entries = read_entries(args.methods, args.masks, configs, trials=args.tune, seed=args.tune_seed)
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


class Ground(NamedTuple):
    """What the runs of one seed stand on."""

    seed: int
    data: dict[str, Any]
    """The options that name the rows and the owners to forget."""
    roles: dict[str, str]
    """Model or judge, or its mask, by role."""
    made: dict[str, Path]
    """The folders of the stages that make them; what is given has none."""

    def of(self, *roles: str) -> list[Path]:
        """The folders of those that are made."""
        return [self.made[role] for role in roles if role in self.made]


def plan_seed(
    plan: Plan, data: DataArguments, args: BenchmarkArguments, configs: Path, entries: list[Entry], seed: int
) -> list[Row]:
    """Adds the stages of one seed; its rows, target and retrained control first."""
    if args.vary_world:
        data = dataclasses.replace(data, world_seed=seed)
    ground = plan_ground(plan, data, args, configs, seed)
    measures = measures_of(ground, configs, tuned=bool(args.tune))
    rows = []
    for name in ("target", "retrained"):
        own = {"model_name_or_path": ground.roles[name]}
        commands = [(["measure"], {"output": f"{OWN}/measurement.json", **options, **own}) for options in measures]
        after = ground.of(name, *JUDGES)
        folder = plan.add(f"measure-{name}-seed{seed}", commands, *after, makes="measurement.json", kind="measure")
        rows.append(Row(name, None, seed, 0, folder, ground.roles[name]))
    return rows + [row for entry in entries for row in plan_entry(plan, args, configs, entry, ground, measures)]


def plan_ground(plan: Plan, data: DataArguments, args: BenchmarkArguments, configs: Path, seed: int) -> Ground:
    """Adds the stages that make the models, judges and masks that are not given."""
    everyone = load_parts(data).owners
    split_owners(data, everyone)  # refuses unknown owners
    owners = forget_names(data, everyone)
    asked = said_of(dataclasses.replace(data, forget_owners=owners))
    of_all = said_of(dataclasses.replace(data, forget_owners=None, num_forget=DataArguments.num_forget))
    ground = Ground(seed, asked, {role: str(path) for role, path in args.given.items()}, {})
    roles = ground.roles

    def make(role: str, recipe: str, result: str, options: dict[str, Any], *after: str) -> None:
        if role in roles:
            return
        own = role != "base" and ("seed" in options or args.vary_world)
        name = f"{role}-seed{seed}" if own else role
        commands = [([recipe], {**options, "output_dir": OWN})]
        ground.made[role] = plan.add(name, commands, *ground.of(*after), makes="done", kind=role)
        roles[role] = str(ground.made[role] / result)

    if "base" not in roles:
        make("base", "finetune", "model", settings_of(configs / "base.yaml") | of_all)
    target = settings_of(configs / "target.yaml") | of_all | {"seed": seed, "model_name_or_path": roles["base"]}
    make("target", "finetune", "model", target, "base")
    make("retrained", "finetune", "model", target | {"exclude_owners": owners}, "base")
    for role in JUDGES:
        options = settings_of(configs / f"{role}.yaml") | of_all
        if options.get("classifier", "llm") == "llm":
            kwargs = {**options.get("classifier_kwargs", {}), "model": roles["base"]}
            options |= {"seed": seed, "classifier_kwargs": kwargs}
        make(role, "train_classifier", "classifier", options, "base")
    for name, settings in args.masks.items():
        options = settings_of(configs / "mask.yaml") | asked | {"seed": seed, "model_name_or_path": roles["target"]}
        make(f"mask-{name}", "attribute_weights", "mask.safetensors", options | settings, "target")
    return ground


def measures_of(ground: Ground, configs: Path, *, tuned: bool) -> list[dict[str, Any]]:
    """What is measured of each model: all rows, or where there are trials, the halves apart."""
    roles = ground.roles
    measure = settings_of(configs / "measure.yaml") | ground.data | {"model_name_or_path": f"{OWN}/model"}
    measure |= {"test_judge": roles["test_judge"], "reward_judge": roles["classifier"]}
    if "base_model" in measure:
        measure["base_model"] = roles["base"]
    if not tuned:
        return [measure]
    chosen_by = {**measure, "fold": VALIDATION, "output": f"{OWN}/validation/measurement.json"}
    del chosen_by["test_judge"]
    return [{**chosen_by, "validation_judge": roles["validation_judge"]}, {**measure, "fold": REPORT}]


def plan_entry(
    plan: Plan,
    args: BenchmarkArguments,
    configs: Path,
    entry: Entry,
    ground: Ground,
    measures: list[dict[str, Any]],
) -> list[Row]:
    """Adds the runs of one method for one seed, each with its measures."""
    rows, roles = [], ground.roles
    launcher = ["--accelerate_config", args.launch_with] if args.launch_with and entry.recipe == "unlearn" else []
    named = {"base_model": "base", **{role: role for role in JUDGES}}
    for mask in entry.masks:
        for number, settings in enumerate(entry.settings):
            options = settings_of(entry.config) | ground.data
            options |= {option: roles[role] for option, role in named.items() if option in options}
            options |= {"method": entry.method, "seed": ground.seed, "model_name_or_path": roles["target"]}
            options |= {"output_dir": OWN, "mask": None if mask == "dense" else roles[f"mask-{mask}"], **settings}
            if entry.recipe == "spunge":
                options |= {"measure_config": str(configs / "measure.yaml"), "launch_with": args.launch_with}
            if ground.seed == args.seeds[0]:
                check_options(entry, options)
            commands = [([entry.recipe, *launcher], options), *((["measure"], measure) for measure in measures)]
            values = "".join(f"-{value}" for value in told(entry, settings).values())
            label = f"{entry.name}-{mask}{values}-seed{ground.seed}"
            after = ground.of("target", f"mask-{mask}", *JUDGES)
            folder = plan.add(label, commands, *after, makes="done", kind=entry.name)
            said = "" if args.tune else "".join(f" {key}={value}" for key, value in told(entry, settings).items())
            under = None if mask == "dense" else mask
            rows.append(Row(entry.name + said, under, ground.seed, number, folder, str(folder / "model")))
    return rows


def said_of(data: DataArguments) -> dict[str, Any]:
    """The options of the data that are not as usual."""
    usual = config_of(DataArguments())
    return {name: value for name, value in config_of(data).items() if value != usual[name]}


def settings_of(config: Path) -> dict[str, Any]:
    if not config.is_file():
        raise ValueError(f"There is no config {config}: write it, or give the model or judge it would make as given.")
    return dict(yaml.safe_load(config.read_text(encoding="utf-8")))


def collect(rows: list[Row], *, tuned: bool) -> list[ResultRow]:
    """What was measured, with ToW beside the control of the same seed; of trials the chosen one, then all of them."""
    controls = {row.seed: row.folder for row in rows if row.name == "retrained"}
    found: list[ResultRow] = []
    trials: list[ResultRow] = []
    scores: dict[tuple[str, str | None], dict[int, list[float]]] = {}
    for row in rows:
        metrics = measured(row.folder / "measurement.json")
        if row.seed in controls:
            metrics["tow"] = tow(metrics, measured(controls[row.seed] / "measurement.json"))
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
        found += [{**part, "method": row.name, "mask": row.mask} for part in parts]
        if not tuned:
            found.append(result)
        elif row.seed in controls:
            before = measured(row.folder / "validation" / "measurement.json")
            control = measured(controls[row.seed] / "validation" / "measurement.json")
            score = validation_score({**before, "tow": tow(before, control)}, control)
            result["metrics"]["validation_score"] = score
            scores.setdefault((row.name, row.mask), {}).setdefault(row.setting, []).append(score)
            trials.append({**result, "trial": row.setting})
    for trial in trials:
        if trial["trial"] == best_setting(scores[trial["method"], trial["mask"]]):
            chosen = trial.copy()
            del chosen["trial"]
            found.append(chosen)
    return [*found, *trials]


def measured(path: Path) -> dict[str, float]:
    """The metrics in a measurement.json."""
    return dict(json.loads(path.read_text(encoding="utf-8"))["metrics"])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except ValueError as error:
        sys.exit(f"benchmark: {error}")
