"""How a recipe ends as a program."""

import errno
import logging
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from trl import TrlParser

from dareu.data.parts import DataArguments
from dareu.runs.program import run_program


def gloo_threads() -> set[str]:
    names = {path.parent.name: path.read_text() for path in Path("/proc/self/task").glob("*/comm")}
    return {thread for thread, name in names.items() if name.startswith("pt_gloo")}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are read from /proc")
def test_no_thread_of_the_process_group_outlives_the_recipe(tmp_path: Path) -> None:
    def main() -> None:
        store = distributed.FileStore(str(tmp_path / "store"), 1)
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        model = DistributedDataParallel(torch.nn.Linear(2, 2))
        model(torch.ones(1, 2)).sum().backward()
        cycle: list[object] = [model]
        cycle.append(cycle)  # as a trainer and its callbacks refer to each other
        assert gloo_threads() - before

    before = gloo_threads()  # another test may have left some
    run_program(main, "train")
    assert not distributed.is_initialized()
    assert gloo_threads() <= before


def test_a_value_error_is_one_sentence_and_a_status() -> None:
    def main() -> None:
        raise ValueError("there is no owner 'Nobody'.")

    with pytest.raises(SystemExit, match=r"^train: there is no owner 'Nobody'\.$"):
        run_program(main, "train")


def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        TrlParser(DataArguments).parse_args_and_config()

    path = tmp_path / "config.yaml"
    monkeypatch.setattr(sys, "argv", ["train", "--config", str(path)])
    with pytest.raises(SystemExit, match=r"^train: there is no file .*config\.yaml: check the path\.$"):
        run_program(main, "train")
    path.write_text("owner: [1\nseed: 2\n")
    with pytest.raises(SystemExit, match=r"^train: the config cannot be read as YAML: .*config\.yaml.* line 2"):
        run_program(main, "train")


def test_a_library_that_finds_no_file_says_so_itself() -> None:
    def main() -> None:
        raise FileNotFoundError("Couldn't find any data file at data.jsonl.")

    with pytest.raises(SystemExit, match=r"^train: Couldn't find any data file at data\.jsonl\.$"):
        run_program(main, "train")


@pytest.mark.parametrize(("rank", "level"), [("0", logging.INFO), ("1", logging.WARNING)])
def test_the_first_process_alone_tells_of_progress(rank: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(logging.root, "handlers", [])
    before = logging.root.level
    try:
        run_program(lambda: None, "train")
        assert logging.root.level == level
    finally:
        logging.root.setLevel(before)


def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, action in (
        (tmp_path, lambda: tmp_path.read_text()),
        (tmp_path / "file", lambda: (tmp_path / "file").mkdir()),
        (tmp_path / "file" / "x", lambda: (tmp_path / "file" / "x").mkdir(parents=True)),
    ):
        with pytest.raises(SystemExit, match=f"^measure: {path}: .*. Give another path.$"):
            run_program(action, "measure")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/3"),
    ],
)
def test_a_full_disk_is_one_sentence(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit, match=r"measure: the disk is full. What is finished is whole: make room"):
        run_program(main, "measure")


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "No"), SafetensorError("invalid header"), RuntimeError("shapes")]
)
def test_other_faults_of_files_keep_their_traceback(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run_program(main, "measure")
