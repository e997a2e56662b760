"""A classifier's folder appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LLM_FILE = "dareu_classifier.json"
SKOPS_FILE = "classifier.skops"


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when the block ends without an error.

    Raises:
        ValueError: `folder` holds something other than a saved classifier, which would be lost.
    """
    folder = Path(folder)
    replaceable = (folder / LLM_FILE).exists() or (folder / SKOPS_FILE).exists()
    if folder.exists() and not replaceable and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and holds no classifier to replace: choose another folder or empty it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    new, old = (folder.with_name(f".{folder.name}.{mark}.{role}") for role in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
