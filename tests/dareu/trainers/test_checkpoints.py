import json
from pathlib import Path

import pytest

from dareu.trainers.checkpoints import MANIFEST, delete_older, last_checkpoint, what_is_wrong, write_manifest
from dareu.trainers.stopwatch import Stopwatch


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "shards").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"x" * 100)
    (path / "shards" / "0.distcp").write_bytes(b"y" * 7)
    write_manifest(path)
    return path


def test_a_manifest_lists_every_file_with_its_size(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 3)
    write_manifest(path)  # once more, it does not list itself
    sizes = {"model.safetensors": 100, "shards/0.distcp": 7}
    assert json.loads((path / MANIFEST).read_text(encoding="utf-8")) == {"sizes": sizes}
    assert what_is_wrong(path) is None


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("damage", "clause"),
    [
        (lambda path: shorten(path / "model.safetensors"), "model.safetensors has 60 of 100 bytes"),
        (lambda path: (path / "shards" / "0.distcp").unlink(), "shards/0.distcp is missing"),
        (lambda path: (path / MANIFEST).unlink(), f"{MANIFEST} is missing"),
        (lambda path: shorten(path / MANIFEST), f"{MANIFEST} is damaged"),
        (lambda path: (path / MANIFEST).write_text("[]"), f"{MANIFEST} is damaged"),
    ],
)
def test_the_newest_whole_checkpoint_is_found(tmp_path: Path, caplog, damage, clause: str) -> None:
    for step in (8, 9, 10):  # 10 is newer than 9, though not in the alphabet
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / ".tmp-checkpoint" / "checkpoint-11").mkdir(parents=True)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not caplog.messages
    damage(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    (message,) = caplog.messages
    assert "checkpoint-10" in message and clause in message and message.endswith(".")


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path, caplog) -> None:
    assert last_checkpoint(tmp_path) is None
    assert not caplog.messages
    (checkpoint(tmp_path, 5) / "model.safetensors").unlink()
    assert last_checkpoint(tmp_path) is None
    assert "begins anew" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [(2, None, [4, 6]), (1, None, [6]), (1, 3, [3, 6]), (2, 3, [3, 6]), (3, 3, [3, 4, 6]), (9, None, [2, 3, 4, 6])],
)
def test_older_checkpoints_go_and_broken_ones_do_not_take_their_place(tmp_path: Path, limit, best, left) -> None:
    for step in (2, 3, 4, 6, 8):
        checkpoint(tmp_path, step)
    shorten(tmp_path / "checkpoint-8" / "model.safetensors")
    delete_older(tmp_path, limit, best=best and tmp_path / f"checkpoint-{best}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in left]


def test_a_stopwatch_counts_stretches_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    stopwatch = Stopwatch()

    @stopwatch.paused()
    def look_away() -> None:
        now[0] += 100

    look_away()  # before it runs
    assert stopwatch.seconds == 0
    with stopwatch:
        now[0] += 2
        stopwatch.before += 30  # of an earlier stretch
        look_away()
        now[0] += 1
        assert stopwatch.seconds == 33
    now[0] += 5
    assert stopwatch.seconds == 33
