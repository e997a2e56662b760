"""Stages of longer work: commands of `dareu` in processes of their own, each after those it builds on."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dareu.cli import find_recipes
from dareu.files import content_hash, write_json
from dareu.runs._forked import can_fork, prepare_to_fork, run_forked
from dareu.trainers.checkpoints import checkpoint_name

logger = logging.getLogger(__name__)

#: Lines of a failed stage's log that are shown.
_SHOWN_LINES = 15


class Stage(NamedTuple):
    """One or more commands, one after the other."""

    name: str
    after: tuple[str, ...]
    """Names of the stages whose results this one reads."""
    commands: tuple[tuple[str, ...], ...]
    """Words of a command line without the `dareu` at its head; one process each, unless `--accelerate_config` is among
    them."""
    content: Any = None
    """What else goes in, such as what config files say; whatever `content_hash` takes."""
    makes: tuple[Path, ...] = ()
    """Files and folders it leaves; while one is missing, the stage is not done."""
    kind: str = ""
    """Stages of one kind take about the same time."""
    folder: Path | None = None
    """Where it works. Checkpoints in it are deleted once it has ended well, for nothing goes on from them."""


def run_stages(
    stages: Sequence[Stage], folder: Path, jobs: int, *, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Runs stages as their forerunners end, `jobs` at a time, and goes on past those that fail.

    A stage that ended well before is not run again, as long as its commands, its content and those of its forerunners
    are the same and what it made is there. Killed at any moment and started again, only stages that were cut short run
    once more; one that an earlier start's process still works on is waited for.

    Args:
        stages: With unique names, in any order.
        folder: Gets `NAME.log` and, once it ended well, `NAME.json` of each stage.
        jobs: Processes at a time, each with one thread unless `OMP_NUM_THREADS` says otherwise.
        environment: More variables for the processes.

    Returns:
        For each stage that failed, its exit code and the end of its log; for each that needs one of those, which.
    """
    assert len({stage.name for stage in stages}) == len(stages), "stages are known by their names"
    folder.mkdir(parents=True, exist_ok=True)
    keys = _keys(stages)
    seconds = {stage.name: took for stage in stages if (took := _took(stage, keys[stage.name], folder)) is not None}
    if seconds:
        logger.info("Reused, since nothing that goes in has changed: %s.", ", ".join(seconds))
    waiting = [stage for stage in stages if stage.name not in seconds]
    failed: dict[str, str] = {}
    running: dict[Future[float], Stage] = {}
    number, kinds = len(stages), {stage.name: stage.kind for stage in stages}
    if waiting and can_fork():
        prepare_to_fork(_variables(environment))
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            for stage in [stage for stage in waiting if not failed.keys().isdisjoint(stage.after)]:
                waiting.remove(stage)
                broken = next(name for name in stage.after if name in failed)
                failed[stage.name] = f"{stage.name} was not run, for it needs {broken}, which failed"
            ready = [stage for stage in waiting if seconds.keys() >= set(stage.after)]
            for stage in ready[: jobs - len(running)]:
                waiting.remove(stage)
                left = _time_left([*waiting, *running.values(), stage], seconds, kinds, jobs)
                outlook = "" if left is None else f", about {left / 60:.0f} min left"
                logger.info("[%d/%d%s] %s:", number - len(waiting), number, outlook, stage.name)
                for words in stage.commands:
                    logger.info("  %s\n", shlex.join(["dareu", *words]))
                running[pool.submit(run_stage, stage, folder, environment)] = stage
            if not running:
                continue
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                stage = running.pop(future)
                try:
                    seconds[stage.name] = future.result()
                except RuntimeError as error:
                    failed[stage.name] = str(error)
                    logger.warning("%s failed; going on with what does not need it.", stage.name)
                    continue
                write_json(folder / f"{stage.name}.json", {"key": keys[stage.name], "seconds": seconds[stage.name]})
                for checkpoint in stage.folder.glob(checkpoint_name("*")) if stage.folder else ():
                    shutil.rmtree(checkpoint, ignore_errors=True)
                logger.info("%s took %.0f s", stage.name, seconds[stage.name])
    return failed


def run_stage(stage: Stage, folder: Path, environment: Mapping[str, str] | None = None) -> float:
    """Runs the commands of one stage and gives the seconds it took.

    Raises:
        RuntimeError: A command failed; says the exit code and the end of the log.
    """
    log = folder / f"{stage.name}.log"
    with _alone(stage.name, folder) as lock:
        log.write_text("", encoding="utf-8")
        start = time.perf_counter()
        for words in stage.commands:
            code = _run(words, log, lock, _variables(environment))
            if code:
                last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:])
                raise RuntimeError(f"stage {stage.name} failed with exit code {code}; the end of {log}:\n{last}")
        return time.perf_counter() - start


def _variables(environment: Mapping[str, str] | None) -> dict[str, str]:
    # Two processes of two threads each on two cores would run ten times slower than with one thread each.
    return {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ, **(environment or {})}


def _run(words: Sequence[str], log: Path, lock: int, variables: Mapping[str, str]) -> int:
    """Runs a command and gives its exit code. A recipe needs no launcher, whose start takes seconds."""
    recipe, *rest = words
    program = find_recipes().get(recipe) if "--accelerate_config" not in rest else None
    if program is not None and can_fork():
        return run_forked(program, rest, log, lock, variables)
    # -P: no module of the working directory takes an installed one's place
    command = ["-P", "-m", "dareu.cli", *words] if program is None else [str(program), *rest]
    with log.open("a", encoding="utf-8") as file:
        return subprocess.run(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=variables,
            pass_fds=[lock],
            check=False,
        ).returncode


@contextmanager
def _alone(name: str, folder: Path) -> Iterator[int]:
    """A lock on the stage, which its process holds too, so that it outlives a launcher that was killed."""
    descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s is still being run by a process of an earlier start: waiting for it.", name)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _keys(stages: Sequence[Stage]) -> dict[str, str]:
    """Hashes of what goes into each stage, through its forerunners too."""
    known = {stage.name: stage for stage in stages}
    keys: dict[str, str] = {}

    def key(name: str) -> str:
        if name not in keys:
            stage = known[name]
            keys[name] = content_hash([stage.commands, stage.content, [key(other) for other in stage.after]])
        return keys[name]

    return {name: key(name) for name in known}


def _took(stage: Stage, key: str, folder: Path) -> float | None:
    """The seconds that a finished stage took; None where it has to be run."""
    try:
        done = json.loads((folder / f"{stage.name}.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    whole = done.get("key") == key and all(path.exists() for path in stage.makes)
    return float(done["seconds"]) if whole else None


def _time_left(
    stages: Sequence[Stage], seconds: Mapping[str, float], kinds: Mapping[str, str], jobs: int
) -> float | None:
    """Seconds that these stages will take, by what others of their kind took; None while none has ended."""
    if not seconds:
        return None
    by_kind: dict[str, list[float]] = {}
    for name, took in seconds.items():
        by_kind.setdefault(kinds[name], []).append(took)
    usual = sum(seconds.values()) / len(seconds)
    means = {kind: sum(taken) / len(taken) for kind, taken in by_kind.items()}
    return sum(means.get(stage.kind, usual) for stage in stages) / jobs
