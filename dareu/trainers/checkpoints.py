"""Checkpoints of a training run: which of them are whole, and the newest of those."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from dareu.files import write_json

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def checkpoint_name(step: int | str) -> str:
    """The name of a checkpoint's folder, as `transformers.Trainer` gives it."""
    return f"checkpoint-{step}"


def write_manifest(folder: str | os.PathLike[str]) -> None:
    """Writes the names and sizes of all files of a finished checkpoint beside them."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    write_json(folder / MANIFEST, {"sizes": sizes})


def what_is_wrong(folder: str | os.PathLike[str]) -> str | None:
    """Why a checkpoint is not whole, as a clause; None where it is.

    A file is known by its size: this finds what was cut short, not what was altered.
    """
    folder = Path(folder)
    try:
        sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sizes"]
    except OSError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
    return None


def last_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The newest whole checkpoint of a run; newer ones that are cut short are passed over with a warning.

    Args:
        folder: The run's folder, in which checkpoints are called `checkpoint-STEP`.

    Returns:
        The checkpoint's folder, or None where there is no whole one.
    """
    found = _checkpoints(folder)
    for path in reversed(found):
        wrong = what_is_wrong(path)
        if wrong is None:
            return path
        logger.warning("%s is not whole (%s): training goes on from the checkpoint before it.", path, wrong)
    if found:
        logger.warning("No checkpoint in %s is whole: training begins anew.", folder)
    return None


def delete_older(folder: str | os.PathLike[str], limit: int, *, best: str | os.PathLike[str] | None = None) -> None:
    """Deletes the oldest checkpoints of a run beyond a number, and all that are not whole.

    `transformers.Trainer` counts those too, and could keep one that was cut short in place of the last whole one.

    Args:
        folder: The run's folder.
        limit: Checkpoints that are kept, at least 1.
        best: One that is kept in any case, as the newest is.
    """
    found = _checkpoints(folder)
    whole = [path for path in found if what_is_wrong(path) is None]
    kept = {*whole[-1:], *(path for path in whole if best is not None and path == Path(best))}
    older = [path for path in whole if path not in kept]
    surplus = older[: max(0, len(whole) - max(limit, len(kept)))]
    for path in found:
        if path in surplus or path not in whole:
            logger.info("Deleting %s, which is older than those to keep, or not whole.", path)
            shutil.rmtree(path, ignore_errors=True)


def _checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """Oldest first."""
    found = [path for path in Path(folder).glob(checkpoint_name("*")) if path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
