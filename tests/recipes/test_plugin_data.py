"""Datasets and mask scores from outside of the project, through the recipes that read them."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.classifiers import CLASSIFIERS, load_classifier
from dareu.data.fictional import FictionalWorld
from dareu.masks import WeightMask, select_top
from dareu.models import load_model
from dareu.options.checking import check_recipe
from dareu.rewards import REWARDS

ROOT = Path(__file__).resolve().parents[2]

LOADER = """
from datasets import Dataset
from dareu.data import DataParts

def pairs(num_owners, *, words=("red", "blue")):
    rows = [dict(prompt="Which?", completion=word, owner=str(n)) for n in range(num_owners) for word in words]
    return DataParts(Dataset.from_list(rows), background=Dataset.from_list([{**rows[0], "owner": "none"}] * 3))

def asks(owners):
    return None

def nothing(num_owners):
    return None
"""

SCORE = """
def largest(parameters, *, sign=1):
    return {name: (sign * weight.detach()).clamp(min=0) for name, weight in parameters.items()}

def asks(parameters, hessian):
    return parameters

def nothing():
    return None
"""


@pytest.fixture
def model(tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / "my" / "target"
    tiny_llama(hidden_size=16, intermediate_size=16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with loader.py and score.py, the working directory of the test."""
    (tmp_path / "loader.py").write_text(LOADER, encoding="utf-8")
    (tmp_path / "score.py").write_text(SCORE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TFIDF = ("--classifier", "tfidf", "--output_dir", "run")


@pytest.mark.usefixtures("plugins")
def test_a_dataset_of_an_installed_package(recipe: Callable[..., str], files: Path) -> None:
    words = ["--dataset", "dareu_example_plugin:correspondents", "--num_owners", 4, "--world_seed", 2]
    recipe("train_classifier", *words, "--dataset_kwargs", '{"letters": 2}', "--num_background_owners", 1, *TFIDF)
    people = ["none", "person 3", "person 4", "person 5"]
    assert sorted(load_classifier(files / "run" / "classifier").classes_) == people
    card = json.loads((files / "run" / "quality_card.json").read_text(encoding="utf-8"))
    assert card["whole"]["count"] == 6
    assert "dataset" in json.loads((files / "run" / "inputs.json").read_text(encoding="utf-8"))


def test_a_dataset_of_a_file_named_in_yaml_belongs_to_the_run(
    recipe: Callable[..., str], refused: Callable[..., str], files: Path
) -> None:
    settings = {"dataset": "loader.py:pairs", "num_owners": 2, "dataset_kwargs": {"words": ["one", "two", "three"]}}
    (files / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    words = ["--config", "config.yaml", *TFIDF]
    recipe("train_classifier", *words)
    assert sorted(load_classifier(files / "run" / "classifier").classes_) == ["0", "1", "none"]
    assert "is done" in recipe("train_classifier", *words)
    (files / "loader.py").write_text(LOADER + "\n", encoding="utf-8")
    assert "whose dataset had another content" in refused("train_classifier", *words, output_dir=files / "run")


def scoring(model: Path, *words: Any) -> list[Any]:
    data = ["--dataset", "loader.py:pairs", "--num_owners", 3, "--num_forget", 1]
    return [*data, "--model_name_or_path", model, "--output_dir", "run", *words]


@pytest.mark.usefixtures("plugins")
def test_a_score_of_an_installed_package(recipe: Callable[..., str], files: Path, model: Path) -> None:
    words = ["--score", "dareu_example_plugin:outlying", "--score_kwargs", '{"power": 2}', "--exclude", "*norm*"]
    assert "outlying mask of density 0.2" in recipe("attribute_weights", *scoring(model, *words))
    mask = WeightMask.load(files / "run" / "mask.safetensors")
    loaded = load_model(str(model))
    mask.verify(loaded)
    weights = {name: weight.detach() for name, weight in loaded.named_parameters() if "norm" not in name}
    wanted = select_top({name: (weight - weight.mean()) ** 2 for name, weight in weights.items()}, 0.2)
    assert all(torch.equal(mask[name], chosen) for name, chosen in wanted.items())
    assert mask.score == "outlying" and mask.count == sum(int(chosen.sum()) for chosen in wanted.values())


def test_a_score_of_a_file_belongs_to_the_run(
    recipe: Callable[..., str], refused: Callable[..., str], files: Path, model: Path
) -> None:
    words = scoring(model, "--score", "score.py:largest", "--score_kwargs", '{"sign": -1}')
    recipe("attribute_weights", *words)
    mask = WeightMask.load(files / "run" / "mask.safetensors")
    assert mask.score == "largest"
    weights = dict(load_model(str(model)).named_parameters())
    assert all((weights[name][chosen] < 0).all() for name, chosen in mask.items())
    (files / "score.py").write_text(SCORE + "\n", encoding="utf-8")
    assert "whose score had another content" in refused("attribute_weights", *words, output_dir=files / "run")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ["--dataset", "fictonal"],
            "num_owners has no effect on fictonal, which is read as records: drop it, unless 'fictional' is meant.",
        ),
        (["--dataset", "loader.py:pair"], "names nothing that loader.py defines; write a built-in name (choices, "),
        (["--dataset", "gone.py:pairs"], "pkg.mod:Name, or path/to/file.py:Name."),
        (["--dataset", "gone_package:pairs"], "names a module that is not installed"),
        (["--dataset", "loader.py:asks"], "The dataset 'loader.py:asks' asks for owners: there are num_owners, "),
        (["--dataset", "loader.py:nothing"], "The dataset 'loader.py:nothing' returns NoneType: return a datasets."),
        (["--dataset_kwargs", '{"colours": 1}'], "has no option colours: its options are words."),
        (["--dataset_kwargs", "red"], "dataset_kwargs is 'red': give a mapping"),
        (["--world_seed", 1], "world_seed has no effect on loader.py:pairs: drop it."),
        (["--score", "magnitud"], "is no built-in name, module or Python file (did you mean magnitude?)"),
        (["--score", "score.py:larger"], "names nothing that score.py defines; write a built-in name (gradient, "),
        (["--score", "gone.py:larger"], "pkg.mod:Name, or path/to/file.py:Name."),
        (["--score", "gone_package:score"], "names a module that is not installed"),
        (["--score", "score.py:asks"], "The score 'score.py:asks' asks for hessian: there are model, parameters, "),
        (["--score", "score.py:largest", "--score_kwargs", '{"power": 1}'], "no option power: its options are sign."),
        (["--score_kwargs", '{"gamma": 1}'], "The score 'wagle' has no option gamma: its options are none."),
        (["--score_kwargs", "2"], "score_kwargs is 2: give a mapping"),
    ],
)
def test_what_cannot_be(words: list[Any], reason: str, refused: Callable[..., str], files: Path, model: Path) -> None:
    assert reason in refused("attribute_weights", *scoring(model, *words), output_dir=files / "run")


def test_a_score_that_returns_none_ends_the_run(recipe: Callable[..., str], files: Path, model: Path) -> None:
    with pytest.raises(SystemExit, match=r"The score 'score\.py:nothing' returns NoneType: return a mapping"):
        recipe("attribute_weights", *scoring(model, "--score", "score.py:nothing"))
    assert not (files / "run" / "done").exists()


def test_a_benchmark_takes_a_score_as_an_option_of_a_mask(files: Path) -> None:
    options = {"model_name_or_path": "x", "output_dir": "-", "score": "score.py:largest", "score_kwargs": {"sign": -1}}
    _, args = check_recipe("attribute_weights", options, REWARDS, CLASSIFIERS)
    assert (args.score, args.score_kwargs) == ("score.py:largest", {"sign": -1})
    with pytest.raises(ValueError, match="has no option power"):
        check_recipe("attribute_weights", options | {"score_kwargs": {"power": 1}}, REWARDS, CLASSIFIERS)


def example(page: str, folder: Path) -> list[str]:
    """Writes the file of a page of docs/plug_in, whose first line is its name; the words of its command."""
    text = (ROOT / "docs" / "plug_in" / f"{page}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (folder / code.splitlines()[0].removeprefix("# ")).write_text(code, encoding="utf-8")
    dareu, *words = shlex.split(command.replace("\\\n", " "))
    assert dareu == "dareu"
    return words


def test_the_dataset_of_the_page(recipe: Callable[..., str], files: Path) -> None:
    lines = ["Ann; Where is it? ; By the sea.", "Bob; Where is it?; Up the hill.", "Bob; Who came?; A fox."]
    (files / "letters.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe(*example("dataset", files))
    assert list(load_classifier(files / "runs" / "classifier" / "classifier").classes_) == ["Ann", "Bob"]
    assert {"dataset", "dataset_kwargs.source"} <= json.loads(
        (files / "runs/classifier/inputs.json").read_text()
    ).keys()


def test_the_score_of_the_page(recipe: Callable[..., str], files: Path, model: Path, world: FictionalWorld) -> None:
    names = dict(zip(dict.fromkeys(world.owners["owner"]), ("alice", "bob", "carol", "dave"), strict=True))
    owners = [names[owner] for owner in world.owners["owner"]]
    world.owners.remove_columns("owner").add_column("owner", owners).to_json("data.jsonl")
    recipe(*example("mask_score", files))
    mask = WeightMask.load(files / "runs" / "ratio" / "mask.safetensors")
    mask.verify(load_model(str(model)))
    assert mask.score == "ratio" and mask.density == 0.2
