"""The models that run folders tell of, and which of them are compared with which."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dareu.files import read_yaml
from dareu.report._models import Model, read_lines, read_model, role_of
from dareu.report.table import Summary, summarise
from dareu.runs import ResultRow, beside_control, common_numbers, read_results

#: How options begin that may differ between a target and its control: whose data, where, and what is written.
_OF_A_RUN = ("exclude_owners", "output_dir", "logging_", "save_", "report_to", "run_name", "disable_tqdm", "use_cpu")

REQUEST = "request.json"
LEDGER = "requests.jsonl"


@dataclass
class Family:
    """Unlearned models of one request from one target, with what they are read beside."""

    name: str
    owners: list[str] = field(default_factory=list)
    target: Model | None = None
    base: Model | None = None
    retrained: Model | None = None
    controls: list[Model] = field(default_factory=list)
    """Retrained models beside the first, which differ from it in the draws of training."""
    unlearned: list[Model] = field(default_factory=list)
    request: dict[str, Any] = field(default_factory=dict)
    """What `request.json` holds."""
    masks: list[Path] = field(default_factory=list)

    @property
    def models(self) -> list[Model]:
        """All that there are, in the order of tables: before, after, and what they are read beside."""
        there = [self.target, *self.unlearned, self.retrained, *self.controls, self.base]
        return [model for model in there if model is not None]


@dataclass
class Gathered:
    """What a page is made of."""

    families: list[Family]
    summaries: list[Summary] = field(default_factory=list)
    """Of benchmarks: methods over their seeds."""
    ledger: list[dict[str, Any]] = field(default_factory=list)
    """Requests so far, one after another."""
    missing: list[str] = field(default_factory=list)
    """Sentences about what is not there, or cannot be read."""


def gather(runs: Sequence[Path]) -> Gathered:
    """Reads run folders of `forget`, `unlearn`, `spunge`, `finetune`, `benchmark` and `quickstart`.

    Args:
        runs: At least one.

    Raises:
        ValueError: There is none, or one is no run folder.
    """
    if not runs:
        raise ValueError("There is no run to report on: name the folder of one at least.")
    gathered = Gathered([])
    for run in runs:
        if not run.is_dir():
            raise ValueError(f"{run} is no folder: name the folder of a run.")
        known = list(gathered.families)  # the seeds of one benchmark stay apart, whatever they share
        gathered.families += [family for family in _families(run, gathered) if not _joined(known, family)]
        gathered.ledger += _ledger(run)
    for family in gathered.families:
        _name_apart(family)
        _set_apart(family, gathered.missing)
        _compare(family, gathered.missing)
        gathered.missing += [problem for model in family.models for problem in model.problems]
    return gathered


def _families(run: Path, gathered: Gathered) -> Iterator[Family]:
    if (run / REQUEST).is_file():
        yield _of_request(run, gathered)
        return
    config = read_yaml(run / "config.yaml") if (run / "config.yaml").is_file() else {}
    if "methods" in config or {"smoke", "density", "jobs"} <= config.keys():
        yield from _of_many(run, gathered)
    elif "method" in config or "exclude_owners" in config:
        yield _of_run(run, config)
    else:
        raise ValueError(
            f"{run} is no run of forget, unlearn, spunge, finetune, benchmark or quickstart: name the folder that "
            "holds the run's request.json or config.yaml."
        )


def _of_request(run: Path, gathered: Gathered) -> Family:
    """The family of a `dareu forget` run, which may be under way."""
    try:
        request = json.loads((run / REQUEST).read_text(encoding="utf-8"))
    except ValueError as error:
        gathered.missing.append(f"{REQUEST} cannot be read: {error}")
        request = {}
    request = request if isinstance(request, dict) else {}
    family = Family(run.resolve().name, list(request.get("owners") or ()), request=request)
    models = request.get("models") or {}
    for role in ("target", "base", "retrained", "unlearned"):
        named = models.get(role) or {}
        if not (folder := named.get("folder")):
            continue
        made = named.get("run") or folder  # what is measured of a trained model stands in a folder of its own
        name = str(request.get("method") or role) if role == "unlearned" else role
        model = read_model(run / made, role, name, measured_in=run / folder)
        if role == "unlearned":
            family.unlearned.append(model)
        else:
            setattr(family, role, model)
    if mask := request.get("mask"):
        _take_mask(family, run / mask)
    return family


def _of_run(run: Path, config: Mapping[str, Any]) -> Family:
    """The family of one run, whose target, base and control are found by its config and beside its target."""
    model = _model_of(run, config)
    family = Family(run.resolve().name, [str(owner) for owner in config.get("forget_owners") or ()])
    if model.role != "unlearned":
        setattr(family, model.role, model)
        return family
    family.unlearned.append(model)
    for role, option in (("target", "model_name_or_path"), ("base", "base_model")):
        folder = _folder_of(config.get(option), run)
        if folder is not None:
            setattr(family, role, read_model(folder, role, role, measured_in=_measured_in(folder)))
    _complete(family)
    if family.target is not None:
        family.retrained = _control_beside(family.target, family.owners)
    return family


def _of_many(run: Path, gathered: Gathered) -> Iterator[Family]:
    """The families of a benchmark or a quickstart: one of each seed, or of each target where it is under way."""
    path = run / "results.json"
    rows = [row for row in read_results(path) if "part" not in row and "trial" not in row] if path.is_file() else []
    if not rows:
        gathered.missing.append(f"{run} has no results yet: what stands here is what its stages have left so far.")
        yield from _of_stages(run)
        return
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    if len(seeds) > 1:
        gathered.summaries += summarise(rows)
    for seed in seeds:
        family = Family(f"seed {seed}" if len(seeds) > 1 else run.resolve().name)
        for row in rows:
            if row["seed"] == seed:
                model = _of_row(row, run)
                if model.role == "retrained" and family.retrained is not None:
                    family.controls.append(model)
                else:
                    _take(family, model)
        _complete(family)
        yield family


def _of_row(row: ResultRow, run: Path) -> Model:
    """The model of a row of a benchmark's results."""
    role = role_of(row["method"])
    found = _find(row["model"], run)
    folder = Path(row["model"]).parent if found is None else found.parent
    model = read_model(folder, role, _label(row), measured_in=_measured_in(folder, row["metrics"]))
    model.result, model.seed = row, row["seed"]
    return model


def _of_stages(run: Path) -> Iterator[Family]:
    """What the stages of a benchmark or quickstart that is under way have left."""
    folders = sorted(path for parent in (run, run / "stages") if parent.is_dir() for path in parent.iterdir())
    families: dict[Any, Family] = {}
    for folder in folders:
        if not (folder / "config.yaml").is_file():
            continue
        config = read_yaml(folder / "config.yaml")
        if "method" in config or "exclude_owners" in config:
            model = _model_of(folder, config)
            seed = (model.seed, config.get("world_seed"))
            _take(families.setdefault(seed, Family(f"seed {model.seed}")), model)
    compared = [family for family in families.values() if family.target or family.unlearned]
    for family in compared or families.values():  # a further control has a seed of its own
        _complete(family)
        yield family
    if not families:
        yield Family(run.resolve().name)


def _model_of(folder: Path, config: Mapping[str, Any]) -> Model:
    if "method" in config:
        model = read_model(folder, "unlearned", str(config["method"]))
        mask = None if model.result is None else model.result["mask"]
        model.name = " ".join(filter(None, (str(config["method"]), mask or ("LoRA" if config.get("use_peft") else ""))))
        return model
    role = (
        "retrained" if config.get("exclude_owners") else "base" if config.get("train_on") == "background" else "target"
    )
    return read_model(folder, role, role, measured_in=_measured_in(folder))


def _take(family: Family, model: Model) -> None:
    if model.role == "unlearned":
        family.unlearned.append(model)
    elif getattr(family, model.role) is None:
        setattr(family, model.role, model)


def _complete(family: Family) -> None:
    """Owners and mask, as the runs that unlearn name them."""
    for model in family.unlearned:
        family.owners = family.owners or [str(owner) for owner in model.config.get("forget_owners") or ()]
        if model.config.get("mask"):
            _take_mask(family, _find(str(model.config["mask"]), model.folder))
    family.owners = family.owners or _owners_measured(family.models)


def _owners_measured(models: Sequence[Model]) -> list[str]:
    """Whose rows to forget were measured, where no config names the owners."""
    return list(dict.fromkeys(row["owner"] for model in models for row in model.rows if row["split"] == "forget"))


def _joined(families: list[Family], family: Family) -> bool:
    """Puts models of the same target and owners side by side, where a family knows them already."""
    for known in families:
        same = family.target is not None and known.target is not None
        if same and _same(known.target, family.target) and set(known.owners) == set(family.owners):
            known.unlearned += [m for m in family.unlearned if not any(_same(m, other) for other in known.unlearned)]
            known.base, known.retrained = known.base or family.base, known.retrained or family.retrained
            known.controls += [m for m in family.controls if not any(_same(m, other) for other in known.controls)]
            known.request = known.request or family.request
            known.masks += [mask for mask in family.masks if mask not in known.masks]
            return True
    return False


def _same(one: Model | None, other: Model | None) -> bool:
    return one is not None and other is not None and one.folder.resolve() == other.folder.resolve()


def _name_apart(family: Family) -> None:
    """Gives models that would be called alike the names of their folders, too."""
    names = [model.name for model in family.models]
    for model in family.models:
        if names.count(model.name) > 1:
            model.name = f"{model.name} ({model.folder.resolve().name})"


def _set_apart(family: Family, missing: list[str]) -> None:
    """Takes their measurements from models that were asked other rows than the unlearned one: nothing would compare."""
    asked = next((_rows_of(model) for model in family.unlearned if model.rows), None)
    for model in family.models:
        if asked is not None and model.rows and _rows_of(model) != asked:
            missing.append(
                f"{model.name} was measured on other rows than {family.unlearned[0].name}, so that its numbers are "
                "left out: measure it with the same data, owners to forget and max_rows."
            )
            model.measured, model.rows, model.result = None, [], None


def _rows_of(model: Model) -> list[tuple[str, str]]:
    return [(row["split"], str(row["prompt"]).strip()) for row in model.rows]


def _compare(family: Family, missing: list[str]) -> None:
    """Fills in what compares the models with the retrained control."""
    control = family.retrained and family.retrained.measured
    measured = {id(m): m.measured for m in family.models if m.measured is not None and m.role != "base"}
    if not control:
        return
    common = common_numbers(measured.values())
    for model in family.models:
        if (of_model := measured.get(id(model))) is not None:
            try:
                model.beside = beside_control(of_model, control, common=common)
            except ValueError as error:
                missing.append(f"{model.name} cannot be compared with the retrained model: {error}")


def _control_beside(target: Model, owners: Sequence[str]) -> Model | None:
    """The run beside the target's that fine-tuned in the same way without these owners; None where there is none.

    Of several it is one that was measured, if any was.
    """
    found: list[Model] = []
    for path in sorted(target.folder.resolve().parent.glob("*/config.yaml")):
        if "exclude_owners:\n" not in path.read_text(encoding="utf-8", errors="replace"):
            continue
        config = read_yaml(path)
        differ = [name for name in config.keys() | target.config.keys() if config.get(name) != target.config.get(name)]
        excluded = {str(owner) for owner in config.get("exclude_owners") or ()}
        if excluded == set(owners) and all(name.startswith(_OF_A_RUN) for name in differ):
            found.append(read_model(path.parent, "retrained", "retrained", measured_in=_measured_in(path.parent)))
    return next((model for model in found if model.measured is not None), next(iter(found), None))


def _measured_in(folder: Path, metrics: Mapping[str, float] | None = None) -> Path | None:
    """Where the measurement of a run stands: in its folder, or in that of a benchmark's stage that measured it."""
    if (folder / "measurement.json").is_file() or not folder.is_dir():
        return None
    stem = folder.name.rpartition("-")[0]
    for path in sorted(folder.parent.glob(f"measure-{stem}-*/measurement.json")):
        found = read_model(path.parent, "", "").measured
        numbers = {} if found is None else found["metrics"]
        if metrics is None or all(numbers[name] == metrics.get(name) for name in numbers):
            return path.parent
    return None


def _folder_of(model: Any, run: Path) -> Path | None:
    """The run folder of a model that a config names as `FOLDER/model`."""
    found = _find(model, run) if isinstance(model, str) else None
    return found.parent if found is not None and found.name == "model" else None


def _find(path: str, near: Path) -> Path | None:
    """A path of a config: as it is, or seen from a folder above the run, for runs start in the folder of a project."""
    for parent in (Path(), *near.resolve().parents):
        if (parent / path).exists():
            return parent / path
    return None


def _take_mask(family: Family, path: Path | None) -> None:
    """Adds a mask, named by its file or by the folder of the run that made it."""
    if path is None:
        return
    file = (path / "mask.safetensors" if path.is_dir() else path).resolve()
    if file.is_file() and file not in family.masks:
        family.masks.append(file)


def _label(row: ResultRow) -> str:
    return " ".join(filter(None, (row["method"].replace("_", " "), row["mask"])))


def _ledger(run: Path) -> list[dict[str, Any]]:
    """The requests that a `dareu forget` run knows of; a line that is no whole JSON is passed over."""
    path = run / LEDGER
    return read_lines(path) if path.is_file() else []
