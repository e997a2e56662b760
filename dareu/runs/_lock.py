"""A folder that one process works in at a time."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


def hold(folder: Path) -> int:
    """Holds a folder for this process until the descriptor is closed, or the process ends in whatever way.

    A process that holds it already may hold it again, and lets go of it with the first descriptor it closes.

    Args:
        folder: It is made where it is missing.

    Returns:
        The descriptor of its lock, which no child inherits.

    Raises:
        ValueError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # which of them, POSIX leaves to the system
        os.close(descriptor)
        raise ValueError(
            f"Another process is at work in {folder}: wait until it has ended, or give another --output_dir."
        ) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): see to it that nothing else works in it.", folder, error.strerror)
    return descriptor


@contextmanager
def working_alone(folder: Path) -> Iterator[None]:
    """Holds a folder, as `hold` says, until the block ends."""
    descriptor = hold(folder)
    try:
        yield
    finally:
        os.close(descriptor)
