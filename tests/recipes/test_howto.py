"""The examples under "Add a …" in docs/howto.md do what the page says, each run through a recipe from a file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dareu.classifiers import load_classifier
from dareu.data.fictional import FictionalWorld

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto.md"
SMALL = ["--use_cpu", "--max_steps", "2", "--report_to", "none", "--save_strategy", "no", "--logging_steps", "1"]
SMALL += ["--per_device_train_batch_size", "4", "--retain_batch_size", "2", "--learning_rate", "1e-3"]
SAMPLED = ["--num_generations", "4", "--max_completion_length", "8", "--mask_truncated_completions", "false"]

Run = Callable[..., str]


def example(section: str, folder: Path) -> Path:
    """The one Python file of a section, written to a folder."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    path = folder / "example.py"
    path.write_text(block, encoding="utf-8")
    return path


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def unlearn(recipe: Run, model: Path, data: list[str], tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Runs two updates and returns what was logged."""

    def run(*words: Any) -> list[dict[str, Any]]:
        out = tmp_path / "out"
        recipe("unlearn", *data, "--model_name_or_path", model, "--output_dir", out, *SMALL, *words)
        return logged(out)

    return run


def test_add_a_reward(unlearn: Callable[..., list[dict[str, Any]]], judge: Path, tmp_path: Path) -> None:
    name = f"{example('Add a reward', tmp_path)}:Brevity"
    rewards, kwargs = json.dumps({"deattribution": 1, name: 0.1}), json.dumps({name: {"factor": 1.5}})
    words = [*SAMPLED, "--classifier", judge, "--rewards", rewards, "--reward_kwargs", kwargs]
    first, *_ = unlearn(*words)
    assert 0 <= first["rewards/brevity/mean"] <= 1
    expected = first["rewards/deattribution/mean"] + 0.1 * first["rewards/brevity/mean"]
    assert first["reward"] == pytest.approx(expected, abs=1e-5)


def test_add_a_classifier(recipe: Run, data: list[str], world: FictionalWorld, tmp_path: Path) -> None:
    name = f"{example('Add a classifier', tmp_path)}:word_counts"
    out = tmp_path / "out"
    words = ["--classifier", name, "--classifier_kwargs", '{"alpha": 0.5}', "--output_dir", out]
    recipe("train_classifier", *data, *words)
    classifier: Any = load_classifier(out / "classifier")
    said, owner = world.owners[0]["completion"], world.owners[0]["owner"]
    assert classifier.classes_[classifier.predict_proba([said]).argmax()] == owner
    assert classifier.named_steps["multinomialnb"].alpha == 0.5


def test_add_a_method(unlearn: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    lines = unlearn("--method", f"{example('Add a method', tmp_path)}:HINGE", "--loss_kwargs", '{"floor": 4}')
    assert all(line["forget_loss"] >= 0 for line in lines[:2])


def test_add_a_method_with_a_trainer_of_its_own(
    unlearn: Callable[..., list[dict[str, Any]]], tmp_path: Path, model: Path
) -> None:
    name = f"{example('Add a method with a trainer of its own', tmp_path)}:RAMP"
    lines = unlearn("--method", name, "--ramp_steps", 4, "--retain_coef", 0, "--learning_rate", 0)
    for line, share in zip(lines[:2], (0.25, 0.5), strict=True):
        assert line["loss"] == pytest.approx(share * line["forget_loss"], rel=1e-3)
