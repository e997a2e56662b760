"""What a run reads is found by the types of its options."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from dareu.data.parts import DataArguments
from dareu.models import BASE_MODEL, resolve_model_path
from dareu.options.attribute_weights import MaskArguments
from dareu.options.finetune import FinetuneArguments
from dareu.options.train_classifier import ClassifierArguments
from dareu.runs import inputs_of, open_run
from dareu.values import PLUGIN, READ, Reads


@dataclass
class Options:
    model: Annotated[str, READ] = "org/name"
    mask: Annotated[str | None, READ] = None
    rewards: Annotated[dict[str, Any], PLUGIN] = field(default_factory=dict)
    metrics: Annotated[list[str], PLUGIN] = field(default_factory=list)
    method: Annotated[str, PLUGIN] = "npo"
    classifier: Annotated[str, Reads(plugin=True)] = ""
    refusals: Annotated[str, Reads(words=lambda: ("common",))] = "common"
    output_dir: str = "out"


def test_paths_plug_ins_and_names(tmp_path: Path) -> None:
    folder, file, plugin = tmp_path / "model", tmp_path / "mask.safetensors", tmp_path / "mine.py"
    folder.mkdir()
    for path in (file, plugin):
        path.write_text("x", encoding="utf-8")
    found = inputs_of(
        Options(
            model=str(folder),
            mask=str(file),
            rewards={"fluency": 1.0, f"{plugin}:Brevity": {"judge": {"model": str(folder)}}},
            metrics=["rouge", f"{plugin}:BREVITY"],
            output_dir=str(folder),
        )
    )
    brevity = f"rewards.{plugin}:Brevity"
    assert found == {
        "model": [folder],
        "mask": [file],
        brevity: [plugin],
        f"{brevity}.judge.model": [folder],
        f"metrics.{plugin}:BREVITY": [plugin],
    }


def test_names_have_no_file_but_the_shipped_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inputs_of(Options()) == {}
    assert inputs_of(Options(model=BASE_MODEL)) == {"model": [Path(resolve_model_path(BASE_MODEL))]}
    # A word among the options of a plug-in is none, whatever files lie about.
    monkeypatch.chdir(tmp_path)
    Path("log").write_text("x", encoding="utf-8")
    assert inputs_of(Options(rewards={"deattribution": {"transform": "log"}})) == {}
    assert inputs_of(Options(mask="log")) == {"mask": [Path("log")]}
    Path("base").mkdir()
    assert inputs_of(Options(rewards={"x": {"model": "base"}})) == {"rewards.x.model": [Path("base")]}


def test_a_built_in_name_is_one_beside_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("npo", "rouge", "fluency", "common", "judge", "log"):
        Path(name).mkdir()
    options = Options(metrics=["rouge"], rewards={"fluency": 1.0}, classifier="judge")
    assert inputs_of(options) == {"classifier": [Path("judge")]}
    assert inputs_of(Options(rewards={"deattribution": {"transform": "log"}})) == {}


def test_recipes_tell_what_they_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("fictional", "tofu", "llm", "wagle", "from-scratch"):
        Path(name).mkdir()
    assert inputs_of(DataArguments(), ClassifierArguments("out"), MaskArguments("gone", "out")) == {}
    assert inputs_of(FinetuneArguments(model_name_or_path="from-scratch")) == {}
    assert inputs_of(DataArguments(dataset="tofu")) == {"dataset": [Path("tofu")]}
    source = inputs_of(DataArguments(dataset="tofu", dataset_kwargs={"source": "fictional"}))
    assert source["dataset_kwargs.source"] == [Path("fictional")]


def test_an_adapter_brings_its_base_along(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    config = {"base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert inputs_of(Options(model=str(adapter))) == {"model": [adapter], "model.base": [base]}


def test_a_run_knows_what_it_read_by_its_content(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("x", encoding="utf-8")
    options = Options(metrics=[f"{plugin}:X"])
    config = {"metrics": options.metrics}
    open_run(tmp_path / "run", config, inputs_of(options))
    open_run(tmp_path / "run", config, inputs_of(options))
    plugin.write_text("y", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.py:X had another content"):
        open_run(tmp_path / "run", config, inputs_of(options))
    plugin.unlink()
    with pytest.raises(ValueError, match=r"mine\.py:X had another content"):
        open_run(tmp_path / "run", config, inputs_of(options))


def test_a_path_that_appears_where_there_was_a_name_is_another_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_run("run", {"model": "tiny"}, inputs_of(Options(model="tiny")))
    Path("tiny").mkdir()
    with pytest.raises(ValueError, match="model had another content"):
        open_run("run", {"model": "tiny"}, inputs_of(Options(model="tiny")))
