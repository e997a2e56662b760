"""An advantage estimator that lives outside of the project trains through `dareu unlearn`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., str]


pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def unlearn(
    recipe: Run, data: list[str], model: Path, judge: Path, tmp_path: Path
) -> Callable[..., list[dict[str, Any]]]:
    """Runs the recipe in `tmp_path / "run"` and returns what it logged."""

    def run(*words: Any) -> list[dict[str, Any]]:
        options = ["--method", "dareu", "--classifier", judge, "--model_name_or_path", model]
        options += [
            "--rewards",
            '{"deattribution": 1}',
            "--max_completion_length",
            8,
            "--mask_truncated_completions",
            "false",
        ]
        options += ["--per_device_train_batch_size", 4, "--max_steps", 2, "--logging_steps", 1, "--save_steps", 1]
        options += ["--use_cpu", "--report_to", "none", "--output_dir", tmp_path / "run"]
        recipe("unlearn", *data, *options, *words)
        lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    return run


def test_against_the_others_of_a_group(unlearn: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    words = ["--advantage_estimator", "dareu_example_plugin:leave_one_out", "--num_generations", 4]
    logged = unlearn(*words, "--estimator_kwargs", '{"scale": 2.0}')
    assert "frac_groups_without_spread" in logged[0] and "value_loss" not in logged[0]
    assert not list((tmp_path / "run").rglob("critic.safetensors"))
    # Its source is a part of what the run is
    assert "advantage_estimator" in json.loads((tmp_path / "run" / "inputs.json").read_text(encoding="utf-8"))


def test_against_a_critic(unlearn: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    logged = unlearn("--advantage_estimator", "dareu_example_plugin:monte_carlo")
    assert "explained_variance" in logged[0] and logged[0]["value_loss"] > 0
    assert (tmp_path / "run" / "checkpoint-2" / "critic.safetensors").is_file()
    assert not list((tmp_path / "run" / "model").glob("critic*"))


def test_one_that_asks_for_what_there_is_not_stops_before_anything_is_written(
    unlearn: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def mine(judgement):\n    return judgement\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^unlearn: The advantage estimator '.*mine.py:mine' asks for judgement: "):
        unlearn("--advantage_estimator", f"{tmp_path / 'mine.py'}:mine")
    assert not (tmp_path / "run").exists()
