"""Scripts that two processes run together, over gloo on the CPU."""

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from dareu.runs import _forked


def _torchrun(script: Path, words: tuple[object, ...], variables: dict[str, str]) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = subprocess.run(
        [*command, str(script), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
        env=os.environ | variables,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def _fork(script: Path, words: tuple[object, ...], folder: Path) -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    logs, processes = [folder / f"{rank}.log" for rank in range(2)], []
    _forked.prepare_to_fork({})
    with open(os.devnull) as lock:  # nobody else waits for them
        for rank, log in enumerate(logs):
            environment = dict(os.environ) | address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            arguments: tuple[Any, ...] = (script, [str(word) for word in words], log)
            arguments += (_forked._Descriptor(lock.fileno()), environment, Path.cwd())
            process = multiprocessing.get_context("forkserver").Process(target=_forked._main, args=arguments)
            process.start()
            processes.append(process)
    running = {process.sentinel: process for process in processes}
    while running:
        ended = wait(list(running), timeout=600)
        for sentinel in ended:
            running.pop(sentinel).join()  # type: ignore[call-overload]
        if not ended or any(process.exitcode for process in processes):  # the other would wait for it
            for process in running.values():
                process.kill()
    said = "".join(log.read_text(encoding="utf-8") for log in logs)
    assert [process.exitcode for process in processes] == [0, 0], said[-4000:]
    return said


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`two_processes(script, word, …)`: both must end well; gives what they wrote.

    They are forked from a process that has imported the libraries, which takes several times as long as what they do.
    With `VARIABLE=…`, for libraries that read it when they are imported, or beside an accelerator, torchrun starts
    them.
    """

    def run(script: Path, *words: object, **variables: str) -> str:
        if variables or not _forked.can_fork():
            return _torchrun(script, words, variables)
        return _fork(script, words, tmp_path_factory.mktemp("logs"))

    return run
