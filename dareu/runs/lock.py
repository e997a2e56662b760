"""A folder that one process works in at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def working_alone(folder: Path) -> Iterator[None]:
    """Holds a folder for this process until the block ends, or the process does in whatever way.

    Args:
        folder: It is made where it is missing.

    Raises:
        ValueError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which no child inherits
        except OSError:
            raise ValueError(
                f"Another process is at work in {folder}: wait until it has ended, or give another --output_dir."
            ) from None
        yield
