"""Stages run after what they build on, once, and past those that fail."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dareu.runs import stages
from dareu.runs._forked import can_fork
from dareu.runs.stages import Stage, run_stage, run_stages


def stage(name: str, *after: str, makes: tuple[Path, ...] = (), content: object = None) -> Stage:
    return Stage(name, after, ((name, "a b"),), content=content, makes=makes)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that ran; one called broken fails."""
    names: list[str] = []

    def run(stage: Stage, folder: Path, environment: object) -> float:
        if stage.name == "broken":
            raise RuntimeError("stage broken failed with exit code 3")
        names.append(stage.name)
        return 1.0

    monkeypatch.setattr(stages, "run_stage", run)
    return names


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stage_runs_after_its_forerunners(
    jobs: int, ended: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    four = [stage("last", "left", "right"), stage("left", "first"), stage("right", "first"), stage("first")]
    with caplog.at_level("INFO"):
        assert run_stages(four, tmp_path, jobs) == {}
    assert ended[0] == "first" and ended[-1] == "last" and sorted(ended) == ["first", "last", "left", "right"]
    assert "[4/4, about 0 min left] last:" in caplog.messages and "  dareu last 'a b'\n" in caplog.messages


def test_what_is_done_is_reused_until_something_that_goes_in_changes(
    ended: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = tmp_path / "made"
    made.touch()
    chain = [stage("first", makes=(made,)), stage("second", "first"), stage("other")]
    run_stages(chain, tmp_path / "logs", 1)
    ended.clear()
    with caplog.at_level("INFO"):
        run_stages(chain, tmp_path / "logs", 1)
    assert not ended and "Reused, since nothing that goes in has changed: first, second, other." in caplog.text

    run_stages([chain[0]._replace(content="new"), *chain[1:]], tmp_path / "logs", 1)
    assert ended == ["first", "second"], "what builds on a changed stage is made anew, nothing else"
    ended.clear()
    (tmp_path / "logs" / "other.json").write_text('{"key": ', encoding="utf-8")  # cut short
    made.unlink()
    run_stages([chain[0]._replace(content="new"), *chain[1:]], tmp_path / "logs", 1)
    assert ended == ["first", "other"]


def test_checkpoints_go_once_their_stage_has_ended_well(ended: list[str], tmp_path: Path) -> None:
    for name in ("whole", "broken", "bystander"):
        (tmp_path / name / "checkpoint-20").mkdir(parents=True)
        (tmp_path / name / "checkpoint-20" / "optimizer.pt").touch()
        (tmp_path / name / "model").mkdir()
    run_stages([stage(name)._replace(folder=tmp_path / name) for name in ("whole", "broken")], tmp_path / "logs", 1)
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["model"]
    assert (tmp_path / "broken" / "checkpoint-20" / "optimizer.pt").exists(), "it goes on from there"
    assert (tmp_path / "bystander" / "checkpoint-20").exists()


def test_a_failure_stops_only_what_needs_it(ended: list[str], tmp_path: Path) -> None:
    some = [stage("broken"), stage("needs", "broken"), stage("needs_that", "needs"), stage("other")]
    failed = run_stages(some, tmp_path, 1)
    assert ended == ["other"] and list(failed) == ["broken", "needs", "needs_that"]
    assert failed["needs_that"] == "needs_that was not run, for it needs needs, which failed"
    ended.clear()
    run_stages(some, tmp_path, 1)
    assert not ended, "what went well is not run again, and what failed is tried again"


def test_a_failed_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)stage broken failed with exit code 2.*broken\.log.*no recipe 'nothing'"
    ):
        run_stage(Stage("broken", (), (("nothing",),)), tmp_path)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Stage]:
    """A stage whose recipe is the given program."""

    def build(program: str) -> Stage:
        (tmp_path / "shout.py").write_text(program, encoding="utf-8")
        return Stage("shout", (), (("shout", "a b"),))

    monkeypatch.setattr(stages, "find_recipes", lambda: {"shout": tmp_path / "shout.py"})
    return build


@pytest.mark.parametrize("forks", [True, False])
def test_a_recipe_is_a_program_of_its_own(
    forks: bool, recipe: Callable[[str], Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own words, folder, variables and log, forked or not."""
    if forks and not can_fork():
        pytest.skip("nothing may be forked here: there is an accelerator, or another system than Linux")
    monkeypatch.setattr(stages, "can_fork", lambda: forks)
    monkeypatch.chdir(tmp_path)
    program = (
        "import os, subprocess, sys\n"
        "if __name__ == '__main__':\n"
        "    print(sys.argv[1:], os.getcwd(), os.environ['OMP_NUM_THREADS'], os.environ['SHOUTED'], flush=True)\n"
        "    print(f'forked: {\"torch\" in sys.modules}', repr(sys.stdin.read()), flush=True)\n"
        "    subprocess.run([sys.executable, '-c', 'print(1)'])\n"
        "    print('last', file=sys.stderr)\n"
    )
    assert run_stage(recipe(program), tmp_path, {"OMP_NUM_THREADS": "3", "SHOUTED": "x"}) > 0
    log = (tmp_path / "shout.log").read_text(encoding="utf-8")
    assert log == f"['a b'] {tmp_path} 3 x\nforked: {forks} ''\n1\nlast\n"


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("import sys; sys.exit('shout: no')", 1, "shout: no"),
        ("import sys; sys.exit(3)", 3, ""),
        ("raise KeyError('lost')", 1, "KeyError: 'lost'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
    ],
)
@pytest.mark.skipif(not can_fork(), reason="nothing may be forked here")
def test_a_forked_recipe_fails_as_a_program_does(
    program: str, code: int, said: str, recipe: Callable[[str], Stage], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=f"(?s)stage shout failed with exit code {code};.*{said}"):
        run_stage(recipe(program), tmp_path)


@pytest.mark.skipif(not can_fork(), reason="nothing may be forked here")
def test_a_forked_recipe_outlives_a_killed_launcher_and_holds_the_lock(tmp_path: Path) -> None:
    for name in ("begin", "end"):
        os.mkfifo(tmp_path / name)
    program = f"open({str(tmp_path / 'begin')!r}, 'w').close()\nopen({str(tmp_path / 'end')!r}).read()\n"
    (tmp_path / "wait.py").write_text(program, encoding="utf-8")
    code = (
        "import dareu.runs.stages as s\n"
        "from pathlib import Path\n"
        f"s.find_recipes = lambda: {{'wait': Path({str(tmp_path / 'wait.py')!r})}}\n"
        f"s.run_stage(s.Stage('wait', (), (('wait',),)), Path({str(tmp_path)!r}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as launcher:
        (tmp_path / "begin").read_text()
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
    with (tmp_path / "wait.lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (tmp_path / "end").write_text("")  # lets it end
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_what_a_killed_launcher_left_running_is_waited_for(tmp_path: Path) -> None:
    """The stage's own process holds the lock after the launcher is gone."""
    code = (
        "import sys, subprocess, dareu.runs.stages as s\n"
        "from pathlib import Path\n"
        "run = subprocess.run\n"
        "wait = [sys.executable, '-c', 'print(\"begun\", flush=True); import sys; sys.stdin.read()']\n"
        "def hold(words, *, stdin, stdout, **kwargs):\n"
        "    return run(wait, stdin=None, stdout=None, **kwargs)\n"
        "s.subprocess.run = hold\n"
        f"s.run_stage(s.Stage('held', (), (('x',),)), Path({str(tmp_path)!r}))\n"
    )
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code], stdin=read, stdout=subprocess.PIPE, text=True) as launcher:
        os.close(read)
        assert launcher.stdout is not None and launcher.stdout.readline() == "begun\n"
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        command = [
            sys.executable,
            "-c",
            "import logging, sys, dareu.runs.stages as s; from pathlib import Path\n"
            "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(message)s')\n"
            f"with s._alone('held', Path({str(tmp_path)!r})): print('free', flush=True)",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert "still being run by a process of an earlier start" in second.stdout.readline()
            os.close(write)  # lets the stage end
            assert second.stdout.readline() == "free\n"


def test_the_time_left_goes_by_kind() -> None:
    kinds = {"a": "long", "b": "short", "c": "short"}
    left = [Stage("d", (), (), kind="long"), Stage("e", (), (), kind="short"), Stage("f", (), (), kind="new")]
    assert stages._time_left(left, {"a": 100.0, "b": 10.0, "c": 30.0}, kinds, 2) == pytest.approx(
        (100 + 20 + 140 / 3) / 2
    )
    assert stages._time_left(left, {}, {}, 2) is None
