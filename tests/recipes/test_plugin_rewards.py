"""Rewards, methods and classifiers that live outside the project, run through recipes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., str]
SMALL = ["--use_cpu", "--max_steps", "1", "--report_to", "none", "--save_strategy", "no", "--logging_steps", "1"]
SMALL += ["--per_device_train_batch_size", "4", "--retain_batch_size", "2"]
SAMPLED = ["--num_generations", "4", "--max_completion_length", "8", "--mask_truncated_completions", "false"]


@pytest.fixture
def dareu(model: Path, data: list[str], tmp_path: Path) -> list[Any]:
    return [*data, "--model_name_or_path", model, "--output_dir", tmp_path / "out", *SMALL, *SAMPLED]


def logged(folder: Path) -> dict[str, Any]:
    """All that a run logged, the last value of each name."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {name: value for line in lines for name, value in json.loads(line).items()}


def test_rewards_of_an_installed_package_beside_a_built_in_one(
    recipe: Run, plugins: str, dareu: list[Any], judge: Path, tmp_path: Path
) -> None:
    rewards = {"deattribution": 1.0, f"{plugins}:BrevityReward": 0.2, f"{plugins}:likeness": 0.5}
    kwargs = {f"{plugins}:BrevityReward": {"limit": 2}}
    words = ["--classifier", judge, "--rewards", json.dumps(rewards), "--reward_kwargs", json.dumps(kwargs)]
    recipe("unlearn", *dareu, *words)
    found = logged(tmp_path / "out")
    means = {name: found[f"rewards/{name}/mean"] for name in ("deattribution", "brevity_2", "likeness")}
    assert means["deattribution"] <= 0 <= means["brevity_2"] and 0 <= means["likeness"] <= 1
    expected = means["deattribution"] + 0.2 * means["brevity_2"] + 0.5 * means["likeness"]
    assert found["reward"] == pytest.approx(expected, abs=1e-5)
    inputs = json.loads((tmp_path / "out" / "inputs.json").read_text(encoding="utf-8"))
    assert {f"rewards.{plugins}:BrevityReward", "classifier", "dataset", "model_name_or_path"} <= inputs.keys()


def test_a_reward_from_a_file_needs_no_classifier_that_it_does_not_ask_for(
    recipe: Run, dareu: list[Any], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def short():\n    return lambda prompts, completions, **columns: [0.5] * len(completions)\n")
    recipe("unlearn", *dareu, "--rewards", json.dumps({f"{file}:short": 2.0}))
    assert logged(tmp_path / "out")["reward"] == pytest.approx(1.0)


def test_an_edited_plug_in_is_another_run(
    recipe: Run, refused: Callable[..., str], model: Path, data: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    source = "from dareu.methods import METHODS\nMINE = METHODS['npo']\n"
    file.write_text(source, encoding="utf-8")
    out = tmp_path / "out"
    words = [*data, "--model_name_or_path", model, "--output_dir", out, *SMALL, "--method", f"{file}:MINE"]
    recipe("unlearn", *words)
    assert "is done" in recipe("unlearn", *words)
    file.write_text(source + "# another\n", encoding="utf-8")
    assert "method had another content" in refused("unlearn", *words, output_dir=out)


MINE = """
class Named:
    def __init__(self): self.__name__ = "named"
    def __call__(self, prompts, completions, **columns): return [0.0] * len(completions)

class Other(Named): pass

def wants(weather): return Named()

def short():
    def short_list(prompts, completions, **columns): return [0.0]
    return short_list

constant = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"rewards": {"deatribution": 1}}, "did you mean deattribution?"),
        ({"rewards": {"deattribution": 1, "flueny": 0}}, "did you mean fluency?"),
        (
            {"rewards": {"{file}:wants": 1}},
            "asks for weather: there are classifier, forget_owners, nll, retained, tokenizer.",
        ),
        ({"rewards": {"{file}:constant": 1}}, "is of type int: name a function or a class"),
        (
            {"rewards": {"deattribution": 1}, "reward_kwargs": {"deattribution": {"epsilon": 1}}},
            "has no option epsilon: its options are transform",
        ),
        ({"rewards": {"deattribution": 1}, "reward_kwargs": {"fluency": {}}}, "reward_kwargs has options of 'fluency'"),
        ({"rewards": {"deattribution": "much"}}, "the weight 'much': give a number"),
        ({"rewards": {"deattribution": 0}}, "at least one reward"),
        ({"rewards": ["deattribution"]}, "rewards is ['deattribution']: give a mapping"),
        ({"classifier_kwargs": {"depth": 1}}, "classifier_kwargs has no effect on a classifier's folder"),
        ({"classifier": "{file}:Gone"}, "names nothing that"),
        ({"classifier": "{file}:wants"}, "asks for weather: give it among its options."),
    ],
)
def test_what_cannot_be_stops_before_a_model_is_loaded(
    words: dict[str, Any],
    complaint: str,
    refused: Callable[..., str],
    dareu: list[Any],
    judge: Path,
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dareu.models.load_model", None)
    told = {"classifier": str(judge)} | words
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    options = [word for name, text in texts.items() for word in (f"--{name}", text.replace("{file}", str(mine)))]
    assert complaint in refused("unlearn", *dareu, *options, output_dir=tmp_path / "out")


@pytest.mark.parametrize(
    ("rewards", "complaint"),
    [
        ({"{file}:Named": 1, "{file}:Other": 1}, "Two rewards are called 'named'"),
        ({"{file}:short": 1}, "gave 1 scores for 4 completions"),
    ],
)
def test_rewards_that_do_not_do(
    rewards: dict[str, Any], complaint: str, recipe: Run, dareu: list[Any], mine: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        recipe("unlearn", *dareu, "--rewards", json.dumps(rewards).replace("{file}", str(mine)))
    message = str(stopped.value.code)
    assert complaint in message and "\n" not in message, message
    assert not (tmp_path / "out" / "model").exists()
