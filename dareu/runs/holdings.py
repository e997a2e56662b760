"""Files of a run that hold what was to be forgotten, in words or in weights, and taking it out of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from dareu.files import write_json
from dareu.runs._lock import working_alone
from dareu.runs.measurements import read_measurement, write_measurement

#: What says in a run's folder that it was cleaned, and can no longer be gone on with.
CLEANED = "cleaned.json"

#: Measurements, the second of a part of a request after the merge.
_MEASUREMENT, _OF_PART = "measurement.json", "after/*.json"

#: Names of files and folders, and what they hold. A folder is named as a whole; none of them is a finished model.
_HOLDING = {
    "rollouts": "sampled answers, beside gold and uninformed ones",
    "completions": "sampled answers",
    "original": "scores of rows and sampled answers, of the model before unlearning",
    ".tmp-*": "what a process that was killed left half-written",
    "trial-*/model": "a model that has forgotten less",
    "parts/*/model": "a model that has forgotten one part alone",
    "checkpoint-*": "weights on the way to forgetting, and the optimizer's",
    "classifier": "a judge, in whose words or weights the owners' texts are",
    "measured": "answers and scores of rows",
    _MEASUREMENT: "questions and answers; its numbers stay",
    "measurement.parquet": "questions, gold answers and answers",
    _OF_PART: "questions and answers; its numbers stay",
    "after/*.parquet": "questions, gold answers and answers",
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
        run: The folder of any run, or one in which stages are kept (`stages_dir`).

    Raises:
        ValueError: It is no such folder.
    """
    folder = Path(run)
    if not (folder / "config.yaml").is_file() and not (folder / "configs").is_dir():
        raise ValueError(f"{folder} holds no config.yaml: name the folder of a run, or of stages.")
    return [Holding(path, _size(path), holds) for path, holds in _found(folder, folder)]


def take_out(run: str | os.PathLike[str]) -> list[Holding]:
    """Deletes what `holdings` names, but for the numbers in measurements, and says so in the run's `cleaned.json`.

    Raises:
        ValueError: As `holdings` says, or a process is at work in the folder.
    """
    folder = Path(run)
    holdings(folder)  # which refuses what is no run, before anything is written there
    with working_alone(folder):
        found = holdings(folder)
        known = json.loads((folder / CLEANED).read_text(encoding="utf-8")) if (folder / CLEANED).exists() else {}
        names = [str(holding.path.relative_to(folder)) for holding in found]
        deleted = list(dict.fromkeys([*known.get("deleted", ()), *names]))
        write_json(folder / CLEANED, {"date": datetime.now(UTC).isoformat(timespec="seconds"), "deleted": deleted})
        for holding in found:
            if holding.path.is_dir():
                shutil.rmtree(holding.path)
            elif not _is_measurement(holding.path.relative_to(folder)) or not _emptied(holding.path):
                holding.path.unlink()
    return found


def _emptied(path: Path) -> bool:
    """Takes the texts out of a measurement; False where it is damaged."""
    try:
        write_measurement(path, {**read_measurement(path), "answers": {}, "prompts": {}})
    except ValueError:
        return False
    return True


def _found(folder: Path, run: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.iterdir()):
        place = path.relative_to(run)  # what the run and the folders above it are called means nothing
        holds = next((holds for name, holds in _HOLDING.items() if _fits(place, name)), "")
        if holds and not (_is_measurement(place) and not _has_texts(path)):
            yield path, holds
        elif not holds and path.is_dir() and not path.is_symlink() and path.name != "model":
            yield from _found(path, run)


def _is_measurement(place: Path) -> bool:
    return _fits(place, _MEASUREMENT) or _fits(place, _OF_PART)


def _fits(place: Path, name: str) -> bool:
    return fnmatch("/".join(place.parts[-1 - name.count("/") :]), name)


def _has_texts(path: Path) -> bool:
    try:
        measured = read_measurement(path)
    except ValueError:  # damaged or old, and so better gone
        return True
    return bool(measured["answers"] or measured["prompts"])


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(file.stat().st_size for file in files)
