"""Files of a run that hold what was to be forgotten, in words or in weights, and taking it out of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from dareu.files import write_json
from dareu.runs.measurements import read_measurement, write_measurement

#: What says in a run's folder that it was cleaned, and can no longer be gone on with.
CLEANED = "cleaned.json"

_MEASUREMENT = "measurement.json"

#: Names of files and folders, and what they hold. A folder is named as a whole; none of them is a finished model.
_HOLDING = {
    "rollouts": "sampled answers, beside gold and uninformed ones",
    "completions": "sampled answers",
    "checkpoint-*": "weights on the way to forgetting, and the optimizer's",
    "classifier": "a judge, in whose words or weights the owners' texts are",
    "measured": "answers and scores of rows",
    _MEASUREMENT: "questions and answers; its numbers stay",
    "measurement.parquet": "questions, gold answers and answers",
    "*undo*.safetensors": "the weights before unlearning",
    "report.html": "questions and answers",
    "logs/*.log": "what the stages printed, answers among it",
}


class Holding(NamedTuple):
    """A file or folder that holds forgotten data."""

    path: Path
    nbytes: int
    holds: str
    """What, in words."""


def holdings(run: str | os.PathLike[str]) -> list[Holding]:
    """The files and folders of a run, and of its stages, that hold forgotten data, in alphabetical order.

    The model, its mask and patch, numbers, settings and the ledger are none; the last two name the owners. Measurements
    whose texts are taken out already are none either.

    Args:
        run: The folder of any run.

    Raises:
        ValueError: It is no folder of a run.
    """
    folder = Path(run)
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder} holds no config.yaml: name the folder of a run.")
    return [Holding(path, _size(path), holds) for path, holds in _found(folder) if holds]


def take_out(run: str | os.PathLike[str]) -> list[Holding]:
    """Deletes what `holdings` names, but for the numbers in measurements, and says so in the run's `cleaned.json`.

    Raises:
        ValueError: As `holdings` says.
    """
    folder, found = Path(run), holdings(run)
    write_json(
        folder / CLEANED,
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "deleted": [str(holding.path.relative_to(folder)) for holding in found],
        },
    )
    for holding in found:
        if holding.path.name == _MEASUREMENT:
            write_measurement(holding.path, {**read_measurement(holding.path), "answers": {}, "prompts": {}})
        elif holding.path.is_dir():
            shutil.rmtree(holding.path)
        else:
            holding.path.unlink()
    return found


def _found(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.iterdir()):
        holds = next((holds for name, holds in _HOLDING.items() if _fits(path, name)), "")
        if path.name == _MEASUREMENT and holds and not _has_texts(path):
            holds = ""
        if holds:
            yield path, holds
        elif path.is_dir() and not path.is_symlink() and path.name != "model":
            yield from _found(path)


def _fits(path: Path, name: str) -> bool:
    return fnmatch("/".join(path.parts[-1 - name.count("/") :]), name)


def _has_texts(path: Path) -> bool:
    try:
        measured = read_measurement(path)
    except ValueError:  # damaged or old, and so better gone
        return True
    return bool(measured["answers"] or measured["prompts"])


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(file.stat().st_size for file in files)
