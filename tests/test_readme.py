"""The examples of README.md do what it says."""

import ast
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from datasets import Dataset

from dareu.classifiers import NONE_CLASS, TfidfClassifier, check_classifier
from dareu.masks import WeightMask, random_mask
from dareu.plugins import resolve
from dareu.rewards import DeattributionReward
from dareu.trainers import DareUTrainer
from dareu.weights import fingerprint

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

README = Path(__file__).resolve().parent.parent / "README.md"


def python_block(text: str, word: str) -> str | None:
    """The first block of Python in a Markdown text that contains a word."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return next((block for block in blocks if word in block), None)


def test_the_first_block_that_fits_is_taken() -> None:
    text = "```python\na = 1\n```\ntext\n```\npredict_proba\n```\n```python\npredict_proba = 2\n```\n"
    assert python_block(text, "predict_proba") == "predict_proba = 2\n"
    assert python_block(text, "absent") is None


def test_the_plug_in_classifier_of_the_readme_serves_as_a_reward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = python_block(README.read_text(encoding="utf-8"), "def predict_proba")
    if block is None:
        pytest.skip("README.md has no Python block with a predict_proba")
    names = [node.name for node in ast.parse(block).body if isinstance(node, ast.ClassDef)]
    assert len(names) == 1, "the example has one class"
    path = tmp_path / "readme_classifier.py"
    path.write_text(block, encoding="utf-8")
    plug_in = resolve(f"{path}:{names[0]}", {})  # as the command line names it; this runs the example
    made = [value for value in vars(sys.modules[plug_in.__module__]).values() if isinstance(value, plug_in)]
    classifier = made[0] if made else plug_in()

    answers = ["Lucia Duval was born in Porto in 1961.", "I do not know.", "a violin by the harbor"]
    check_classifier(classifier, answers)
    owner = next(str(name) for name in classifier.classes_ if name != NONE_CLASS)
    rewards = DeattributionReward(classifier, [owner])(prompts=["Who?"] * len(answers), completions=answers)
    assert len(rewards) == len(answers)
    assert all(reward is not None and math.isfinite(reward) for reward in rewards)
    if "print(" in block:
        assert capsys.readouterr().out.strip()


def test_the_trainer_of_the_readme_trains(
    tiny_llama: Callable[..., "LlamaForCausalLM"],
    tokenizer: "PreTrainedTokenizerFast",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the folders that the commands before it made are there."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"Where lives {owner}?", "completion": f" near {town} {number}.", "owner": owner}
        for owner, town in (("alice", "Porto"), ("bob", "Accra"), ("carol", "Malmo"))
        for number in range(2)
    ]
    Dataset.from_list(rows).to_json("data.jsonl")
    target = tiny_llama(seed=1)
    for model, folder in ((target, "my/target"), (tiny_llama(), "my/base")):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    classifier = TfidfClassifier().fit([row["completion"] for row in rows], [row["owner"] for row in rows])
    classifier.save("runs/classifier/classifier")
    mask = WeightMask(random_mask(target, 0.5, seed=0), 0.5, "random", fingerprint(target))
    mask.save("runs/mask/mask.safetensors")

    block = python_block(README.read_text(encoding="utf-8"), "DareUTrainer(")
    assert block is not None
    assert block.count("max_steps=100") == 1
    names: dict[str, object] = {}  # in 48 tokens some answers of a random model end
    exec(block.replace("max_steps=100", "max_steps=2, max_completion_length=48, use_cpu=True"), names)
    trainer = names["trainer"]
    assert isinstance(trainer, DareUTrainer)
    assert trainer.state.global_step == 2
    weights = {name: weight.detach().cpu() for name, weight in trainer.model.named_parameters()}
    moved = {name: weights[name] != weight for name, weight in target.named_parameters()}
    assert any(of_one.any() for of_one in moved.values())
    assert not any((of_one & ~mask[name]).any() for name, of_one in moved.items())
