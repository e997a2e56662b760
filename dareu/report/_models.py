"""One model as its folder tells of it: what was measured, what attacks found, how it was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dareu.files import read_yaml
from dareu.runs import ResultRow, StoredMeasurement, read_measurement, read_results
from dareu.runs.audits import StoredAudits, read_audits

_Read = TypeVar("_Read")


@dataclass
class Model:
    """A model, its role in the comparison, and everything that its folder holds."""

    role: str
    """"target", "unlearned", "retrained" or "base"."""
    name: str
    """As the page calls it."""
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    """Hashes of what its run read, by option."""
    log: list[dict[str, Any]] = field(default_factory=list)
    result: ResultRow | None = None
    measured: StoredMeasurement | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    audits: StoredAudits | None = None
    seed: int | None = None
    problems: list[str] = field(default_factory=list)
    """Sentences about files that are there and cannot be read."""
    beside: dict[str, float] = field(default_factory=dict)
    """Numbers that compare it with the retrained control."""

    @property
    def numbers(self) -> dict[str, float]:
        """Everything known of it by name: of its run, beside the control, and measured."""
        run = {} if self.result is None else dict(self.result["metrics"])
        if self.result is not None and self.result["seconds"] is not None:
            run["seconds"] = self.result["seconds"]
        return run | self.beside | ({} if self.measured is None else self.measured["metrics"])

    @property
    def intervals(self) -> dict[str, list[float]]:
        """95 % intervals of its numbers."""
        return {} if self.measured is None else self.measured["intervals"]

    @property
    def versions(self) -> str:
        """What stands in the head of its config: versions of libraries, and the revision of the working directory."""
        lines = self.config_text.splitlines()
        return "; ".join(line.removeprefix("# ") for line in lines if line.startswith("# "))

    @property
    def done(self) -> bool:
        """Whether its run ended well."""
        return (self.folder / "done").exists()

    @property
    def training(self) -> list[dict[str, Any]]:
        """What was logged on the way, without the summary at the end."""
        return [line for line in self.log if "train_runtime" not in line and isinstance(line.get("step"), int)]


def role_of(method: str) -> str:
    """The role of what a results row calls its method; a control that was trained once more is one, too."""
    if method.startswith("retrained"):
        return "retrained"
    return method if method in ("target", "base") else "unlearned"


def read_model(folder: Path, role: str, name: str, *, measured_in: Path | None = None) -> Model:
    """What a folder tells of a model; what is missing stays empty, and what cannot be read is a problem.

    Args:
        folder: Of the run that made it.
        role: See `Model`.
        name: See `Model`.
        measured_in: The folder of its measurement, and perhaps of its audits, where that is another one.
    """
    model = Model(role, name, folder)
    measurement = (measured_in or folder) / "measurement.json"
    config = folder / "config.yaml"
    model.config = _read(model, config, read_yaml) or {}
    model.config_text = (_read(model, config, _text) if model.config else None) or ""
    model.inputs = _read(model, folder / "inputs.json", _object) or {}
    model.log = _read(model, folder / "metrics.jsonl", read_lines) or []
    model.measured = _read(model, measurement, read_measurement)
    audits = [of / "audit.json" for of in (measured_in, folder) if of is not None]
    model.audits = _read(model, next((path for path in audits if path.exists()), audits[-1]), read_audits)
    rows = _read(model, folder / "results.json", read_results)
    whole = [row for row in rows or [] if "part" not in row and "trial" not in row]
    model.result = whole[-1] if whole else None
    seed = model.config.get("seed")
    model.seed = seed if isinstance(seed, int) else None
    model.rows = _rows(model, measurement)
    return model


def _rows(model: Model, measurement: Path) -> list[dict[str, Any]]:
    """The rows of its measurement: the table's, or what the JSON says of them where there is no table."""
    table = _read(model, measurement.with_suffix(".parquet"), _table)
    if table is not None or model.measured is None:
        return table or []
    prompts, answers = model.measured.get("prompts") or {}, model.measured.get("answers") or {}
    return [
        {"split": split, "row": number, "owner": "", "prompt": prompt, "completion": None, "answer": answer}
        for split in prompts
        for number, (prompt, answer) in enumerate(zip(prompts[split], answers.get(split, ()), strict=False))
    ]


def _read(model: Model, path: Path, read: Callable[[Path], _Read]) -> _Read | None:
    """What is read of a file, None where there is none; where it cannot be read, that is noted."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except Exception as error:  # whatever a half-written file makes a reader raise
        model.problems.append(f"{path.name} of {model.name} cannot be read: {' '.join(str(error).split())}")
        return None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _object(path: Path) -> dict[str, str]:
    found = json.loads(_text(path))
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that is being written is passed over."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def _table(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    wanted = ("split", "row", "owner", "prompt", "completion", "answer", "facts")
    file = parquet.ParquetFile(path)
    rows: list[dict[str, Any]] = file.read(
        columns=[name for name in wanted if name in file.schema_arrow.names]
    ).to_pylist()
    return rows
