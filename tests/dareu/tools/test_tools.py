"""The tools as the command line runs them."""

import ast
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dareu.cli
import dareu.tools.mask
import dareu.tools.merge
import dareu.tools.patch
from dareu.masks import WeightMask


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, worked in, with the folders of a model and of the same with four of 1000 entries changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    weight = torch.linspace(-1, 1, 1000).view(10, 100)
    changed = weight.clone()
    changed[3, :4] = 7
    for name, tensor in (("base", weight), ("result", changed)):
        (tmp_path / name).mkdir()
        save_file({"layers.0.w": tensor, "b": torch.zeros(10)}, tmp_path / name / "model.safetensors")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, tool: object, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["tool", *arguments])
    tool.main()  # type: ignore[attr-defined]


def test_the_command_runs_a_tool_in_its_own_process(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert dareu.cli.main(["patch", "make", "base", "result", "patch.safetensors"]) == 0
    assert "for 0.004 of its 1,010 entries" in capfd.readouterr().out
    assert dareu.cli.main(["patch", "apply", "patch.safetensors", "result", "new"]) == 1
    error = capfd.readouterr().err
    assert error.startswith("patch: The patch is for other weights") and "Traceback" not in error
    assert not (models / "new").exists()


def test_make_info_apply_and_undo(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, dareu.tools.patch, "make", "base", "result", "patch.safetensors")
    capsys.readouterr()
    run(monkeypatch, dareu.tools.patch, "info", "patch.safetensors")
    shown = capsys.readouterr().out
    assert "layers.0.w" in shown and "10 × 100" in shown and "1 of 2 tensors stay as they are." in shown
    assert "holds   new values" in shown
    run(monkeypatch, dareu.tools.patch, "apply", "patch.safetensors", "base", "new", "--undo", "undo.safetensors")
    assert "undo.safetensors holds FORGOTTEN DATA" in capsys.readouterr().out
    run(monkeypatch, dareu.tools.patch, "info", "undo.safetensors")
    assert "FORGOTTEN DATA: the values before unlearning; do not ship it" in capsys.readouterr().out
    run(monkeypatch, dareu.tools.patch, "apply", "undo.safetensors", "new", "old")
    for one, other in (("new", "result"), ("old", "base")):
        assert (models / one / "model.safetensors").read_bytes() == (models / other / "model.safetensors").read_bytes()


def test_masks_are_shown_and_compared(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("mask", 4), ("other", 8)):
        masks = {"layers.0.a.q.weight": torch.arange(16) < count, "head.weight": torch.arange(4) < 1}
        WeightMask(masks, 0.25, name, "0" * 32).save(models / f"{name}.safetensors")
    run(monkeypatch, dareu.tools.mask, "show", "mask.safetensors")
    shown = capsys.readouterr().out.split()
    assert shown[shown.index("head") + 1] == "25.0" and shown[shown.index("model") + 1] == "25.0"
    run(monkeypatch, dareu.tools.mask, "show", "mask.safetensors", "--against", "other.safetensors")
    shown = capsys.readouterr().out
    assert "Jaccard overlap 0.5556; random masks of these densities have 0.1915" in shown  # 5 of 9; 1/4 and 9/20
    with pytest.raises(ValueError, match="no mask file"):
        run(monkeypatch, dareu.tools.mask, "show", "none.safetensors")


def test_every_tool_says_what_it_does_and_has_no_recipes_name() -> None:
    tools = dareu.cli.find_tools()
    assert list(tools) == ["clean", "convert", "mask", "merge", "patch", "report"]
    assert not tools.keys() & dareu.cli.find_recipes().keys()
    for path in tools.values():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_merge(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, dareu.tools.merge, "base", "result", "result", "merged", "--weight", "2", "--density", ".003")
    assert capsys.readouterr().out == "The merged model is in merged: 4 of its 1,010 entries moved.\n"
    weights = {name: load_file(models / name / "model.safetensors") for name in ("base", "result", "merged")}
    base, result, merged = (weights[name]["layers.0.w"] for name in ("base", "result", "merged"))
    assert torch.equal(merged, base + 2 * (result - base))
    with pytest.raises(ValueError, match="'merged' is there already"):
        run(monkeypatch, dareu.tools.merge, "base", "result", "merged")


def test_a_folder_in_the_place_of_a_file_is_one_sentence(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (models / "there").mkdir()
    (models / "file").touch()
    assert dareu.cli.main(["patch", "make", "base", "result", "there"]) == 1
    assert dareu.cli.main(["merge", "base", "result", "file/new"]) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said and "patch: " in said and "merge: " in said
