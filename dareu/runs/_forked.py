"""Programs as processes that are forked from one that has imported the libraries of recipes.

What a recipe imports takes a core about as long as a small model takes to be measured; here it is done once for many.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver, reduction
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock
from typing import Any

#: What recipes import, at their heads and later.
_IMPORTED = (
    *(f"dareu.recipes.{name}" for name in ("finetune", "train_classifier", "attribute_weights", "unlearn", "measure")),
    *("dareu.trainers.rl.trainer", "dareu.trainers.loss_based", "dareu.trainers.finetune"),
)

#: Held by who starts or reaps: a start looks at all children, and of two that read an exit code the second finds none.
_CHILDREN = Lock()


@cache
def can_fork() -> bool:
    """Whether processes may be forked here: on Linux, where no accelerator is in sight, since none survives a fork."""
    if not sys.platform.startswith("linux"):
        return False
    import torch

    return not torch.accelerator.is_available()


def prepare_to_fork(environment: Mapping[str, str]) -> None:
    """Starts the process that others are forked from, unless this process has one already.

    Args:
        environment: Variables beside this process's own, for libraries that read them when they are imported.
    """
    own = dict(os.environ)
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(_IMPORTED))
    # Nothing of the working directory takes an installed module's place
    os.environ.update({**environment, "PYTHONSAFEPATH": "1"})
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(own)


def run_forked(program: Path, words: Sequence[str], log: Path, lock: int, environment: Mapping[str, str]) -> int:
    """Runs a Python file as the main program of a forked process, and waits for it.

    Args:
        program: The file.
        words: Its arguments.
        log: Gets what it writes, at the end.
        lock: A file descriptor that the process holds as long as it lives.
        environment: All its variables.

    Returns:
        The exit code; -n where signal n ended it.
    """
    process = multiprocessing.get_context("forkserver").Process(
        target=_main, args=(program, words, log, _Descriptor(lock), dict(environment), Path.cwd())
    )
    with _CHILDREN:
        process.start()
    wait([process.sentinel])
    with _CHILDREN:
        process.join()
    assert process.exitcode is not None
    return process.exitcode


class _Descriptor:
    """A file descriptor that goes with the request for a process, and nowhere if that comes to nothing."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> Any:
        # Made sooner, it would wait in this process, open, for a child that may never ask for it
        return _same, (reduction.DupFd(self._number),)


def _same(thing: Any) -> Any:
    return thing


def _main(
    program: Path, words: Sequence[str], log: Path, lock: Any, environment: Mapping[str, str], folder: Path
) -> None:
    lock.detach()
    gc.freeze()  # what was imported: each training asks the collector to look at all there is
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with log.open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [str(program), *words]
    runpy.run_path(str(program), run_name="__main__")
