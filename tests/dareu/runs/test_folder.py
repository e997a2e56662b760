import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from dareu.runs import open_run, read_results, write_results

CONFIG: dict[str, Any] = {
    "output_dir": "runs/x",
    "lr": 1e-05,
    "forget": ["Ann", "Bob"],
    "nested": {"a": 1, "b": None},
}


@pytest.fixture
def row() -> dict[str, Any]:
    return {
        "method": "dareu",
        "mask": "wagle",
        "seed": 0,
        "model": "runs/x/model",
        "metrics": {"forget_rouge": 0.5, "tow": 1},
        "seconds": 12.5,
        "peak_memory_bytes": 1024,
    }


def test_a_new_run_says_what_it_is_made_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = open_run("runs/x", CONFIG | {"folder": Path("data/tofu")})
    text = (tmp_path / "runs" / "x" / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == CONFIG | {"folder": "data/tofu"}  # and nothing that --config would refuse
    head = [line for line in text.splitlines() if line.startswith("# ")]
    for package in ("dareu", "torch", "transformers", "trl"):
        assert f"{package} {version(package)}" in head[0]
    assert not run.done and {item.name for item in run.folder.iterdir()} == {".lock", "config.yaml"}
    assert run.metrics_path.parent == run.results_path.parent == run.folder


def test_the_git_revision_stands_in_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def last_comment(folder: str) -> str:
        open_run(folder, CONFIG)
        return [line for line in Path(folder, "config.yaml").read_text().splitlines() if line.startswith("#")][-1]

    git("init")
    assert "git " not in last_comment("before")
    Path("file").write_text("1")
    git("add", "file")
    git("commit", "--message", "one")
    git("tag", "v1")
    revision = git("rev-parse", "HEAD")
    assert last_comment("clean") == f"# git {revision}"
    Path("file").write_text("2")
    assert last_comment("changed") == f"# git {revision}-dirty"


def test_the_same_config_opens_the_run_again(tmp_path):
    run = open_run(tmp_path / "x", CONFIG)
    (run.folder / "model").mkdir()
    before = (run.folder / "config.yaml").read_bytes()
    moved = run.folder.rename(tmp_path / "moved")
    again = open_run(moved, CONFIG | {"output_dir": str(moved)})
    assert not again.done
    again.mark_done()
    assert open_run(moved, CONFIG).done
    assert (moved / "config.yaml").read_bytes() == before


def test_versions_are_no_part_of_the_config(tmp_path):
    run = open_run(tmp_path / "x", CONFIG)
    path = run.folder / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(version("torch"), "1.0"), encoding="utf-8")
    assert open_run(tmp_path / "x", CONFIG) == run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 2e-05}, "(lr: 1e-05 there, 2e-05 now)"),
        ({"forget": ["Ann"]}, "(forget: ['Ann', 'Bob'] there, ['Ann'] now)"),
        ({"nested": {"a": 2, "b": None}}, "(nested.a: 1 there, 2 now)"),
        ({"nested": {"a": 1}}, "(nested.b: None there, nothing now)"),
        ({"new": 1}, "(new: nothing there, 1 now)"),
        ({"lr": 1, "forget": 2, "nested": 3, "new": 4}, "nested: {'a': 1, 'b': None} there, 3 now; …)"),
    ],
)
def test_another_config_is_refused_and_nothing_changes(tmp_path, change, said):
    run = open_run(tmp_path / "x", CONFIG)
    before = (run.folder / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        open_run(run.folder, CONFIG | change)
    assert str(run.folder) in str(caught.value) and "another --output_dir, or delete" in str(caught.value)
    assert (run.folder / "config.yaml").read_bytes() == before


def test_a_folder_of_empty_folders_is_new(tmp_path):
    (tmp_path / "completions" / "later").mkdir(parents=True)
    assert open_run(tmp_path, CONFIG).folder == tmp_path
    assert (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("path", ["thesis.tex", "chapters/one.tex"])
def test_a_folder_of_something_else_is_refused(tmp_path, path):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).touch()
    with pytest.raises(ValueError, match=r"holds files but no config\.yaml.*--output_dir"):
        open_run(tmp_path, CONFIG)
    assert [item for item in tmp_path.rglob("*") if item.is_file()] == [tmp_path / path]


def test_a_folder_where_a_process_died_before_the_config_is_new(tmp_path):
    (tmp_path / "data.json").write_text("[]")
    inputs = {"data": [tmp_path / "data.json"]}
    folder = open_run(tmp_path / "run", CONFIG, inputs).folder
    (folder / "config.yaml").unlink()
    assert open_run(folder, CONFIG, inputs).folder == folder
    assert (folder / "config.yaml").exists()
    (folder / "config.yaml").unlink()
    (tmp_path / "data.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"holds files but no config\.yaml"):
        open_run(folder, CONFIG, inputs)


def test_inputs_that_were_cut_short_are_named(tmp_path):
    run = open_run(tmp_path / "x", CONFIG)
    (run.folder / "inputs.json").write_text('{"model": "0123')
    with pytest.raises(ValueError, match=r"inputs\.json cannot be read"):
        open_run(run.folder, CONFIG)


def test_a_folder_where_a_process_died_while_writing_is_new(tmp_path):
    (tmp_path / ".tmp-0123abcd-config.yaml").touch()
    open_run(tmp_path, CONFIG)
    assert (tmp_path / "config.yaml").exists()


def test_results_read_back(tmp_path, row):
    target = row | {
        "mask": None,
        "seconds": None,
        "peak_memory_bytes": None,
        "part": "a",
        "stage": "b",
        "trial": 1,
    }
    write_results(tmp_path / "results.json", [row, target])
    assert read_results(tmp_path / "results.json") == [row, target]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": None}, "method=None; give a string."),
        ({"mask": 0.5}, "mask=0.5; give a string or None."),
        ({"seed": True}, "seed=True; give an integer."),
        ({"seconds": float("inf")}, "seconds=inf; give a finite number or None."),
        ({"peak_memory_bytes": 1.5}, "peak_memory_bytes=1.5; give an integer or None."),
        ({"metrics": [1]}, "metrics=[1]; give a mapping."),
        ({"metrics": {"tow": float("nan")}}, "tow=nan; a metric must be a finite number."),
        ({"metrics": {"tow": "0.5"}}, "tow='0.5'; a metric must be a finite number."),
        ({"metrics": {"forgetRouge": 1}}, "'forgetRouge'; write the name in snake_case."),
        ({"tow": 0.5, "note": "x"}, "has the unknown note, tow; numbers belong in its metrics."),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_written(tmp_path, row, change, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        write_results(tmp_path / "results.json", [row, row | change])
    assert str(caught.value).startswith("Row 1 ")
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_lacks_something_is_refused(tmp_path, row):
    del row["seed"], row["mask"]
    with pytest.raises(ValueError, match="Row 0 of the results lacks mask, seed"):
        write_results(tmp_path / "results.json", [row])


def test_a_run_that_is_done_holds_nothing_half_written(tmp_path):
    run = open_run(tmp_path / "run", {"seed": 1})
    (run.folder / ".tmp-checkpoint" / "checkpoint-4").mkdir(parents=True)
    (run.folder / ".tmp-1234abcd-results.json").touch()
    run.mark_done()
    assert run.done
    assert {path.name for path in run.folder.iterdir()} == {".lock", "config.yaml", "done"}
