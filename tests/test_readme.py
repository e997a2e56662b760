"""The examples of README.md do what it says."""

import ast
import math
import re
import sys
from pathlib import Path

import pytest

from dareu.classifiers import NONE_CLASS, check_classifier
from dareu.plugins import resolve
from dareu.rewards import DeattributionReward

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
