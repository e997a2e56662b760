"""Folders that one process works in at a time."""

import errno
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dareu.runs import open_run
from dareu.runs._lock import hold, working_alone

OPEN = """
import sys
from dareu.runs import open_run
run = open_run(sys.argv[1], {"seed": 1})
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_at_work(folder: Path) -> Iterator[None]:
    """Another process with the run opened, which is killed in the end."""
    command = [sys.executable, "-c", OPEN, str(folder)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.kill()
        holder.communicate()


def test_a_run_is_opened_by_one_process_at_a_time_until_it_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with another_at_work(folder):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(ValueError, match=r"Another process is at work in .*run: wait until .* --output_dir"):
            open_run(folder, {"seed": 1, "jobs": 2}, free=["jobs"])
        with pytest.raises(ValueError, match="Another process is at work in"), working_alone(folder):
            pass
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
        assert open_run(folder, {"seed": 1}, alone=False).folder == folder, "as processes of the same run do"
    assert open_run(folder, {"seed": 1}).folder == folder
    with working_alone(folder):  # of the same process
        pass


def test_a_file_system_without_locks_is_worked_in_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    hold(tmp_path)
    assert caplog.messages == [
        f"{tmp_path} cannot be locked (No locks available): see to it that nothing else works in it."
    ]
