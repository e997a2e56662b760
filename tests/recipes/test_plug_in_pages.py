"""The examples of docs/plug_in do what the pages say, each run through a recipe from a file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dareu.classifiers import load_classifier
from dareu.data.fictional import FictionalWorld

PAGES = Path(__file__).resolve().parents[2] / "docs" / "plug_in"
SMALL = ["--use_cpu", "--max_steps", "2", "--report_to", "none", "--save_strategy", "no", "--logging_steps", "1"]
SMALL += ["--per_device_train_batch_size", "4", "--retain_batch_size", "2", "--learning_rate", "1e-3"]
SAMPLED = ["--num_generations", "4", "--max_completion_length", "8", "--mask_truncated_completions", "false"]

Run = Callable[..., str]


def example(page: str, folder: Path, section: int = 0) -> Path:
    """The one Python file of a section of a page, by number, written to a folder."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8").split("\n## ")[section]
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
    name = f"{example('reward', tmp_path)}:Brevity"
    rewards, kwargs = json.dumps({"deattribution": 1, name: 0.1}), json.dumps({name: {"factor": 1.5}})
    words = [*SAMPLED, "--classifier", judge, "--rewards", rewards, "--reward_kwargs", kwargs]
    first, *_ = unlearn(*words)
    assert 0 <= first["rewards/brevity/mean"] <= 1
    expected = first["rewards/deattribution/mean"] + 0.1 * first["rewards/brevity/mean"]
    assert first["reward"] == pytest.approx(expected, abs=1e-5)


def test_add_a_classifier(recipe: Run, data: list[str], world: FictionalWorld, tmp_path: Path) -> None:
    name = f"{example('classifier', tmp_path)}:word_counts"
    out = tmp_path / "out"
    words = ["--classifier", name, "--classifier_kwargs", '{"alpha": 0.5}', "--output_dir", out]
    recipe("train_classifier", *data, *words)
    classifier: Any = load_classifier(out / "classifier")
    said, owner = world.owners[0]["completion"], world.owners[0]["owner"]
    assert classifier.classes_[classifier.predict_proba([said]).argmax()] == owner
    assert classifier.named_steps["multinomialnb"].alpha == 0.5


def test_add_a_method(unlearn: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    lines = unlearn("--method", f"{example('method', tmp_path)}:HINGE", "--loss_kwargs", '{"floor": 4}')
    assert all(line["forget_loss"] >= 0 for line in lines[:2])


def test_add_a_method_with_a_trainer_of_its_own(
    unlearn: Callable[..., list[dict[str, Any]]], tmp_path: Path, model: Path
) -> None:
    name = f"{example('method', tmp_path, section=1)}:RAMP"
    lines = unlearn("--method", name, "--ramp_steps", 4, "--retain_coef", 0, "--learning_rate", 0)
    for line, share in zip(lines[:2], (0.25, 0.5), strict=True):
        assert line["loss"] == pytest.approx(share * line["forget_loss"], rel=1e-3)


def test_add_an_audit(recipe: Run, model: Path, data: list[str], tmp_path: Path) -> None:
    name = f"{example('audit', tmp_path)}:BEGGING"
    out = tmp_path / "audit.json"
    words = ["--audits", name, "--max_new_tokens", 4, "--max_rows", 2, "--output", out]
    recipe("audit", *data, "--model_name_or_path", model, *words)
    assert json.loads(out.read_text(encoding="utf-8"))["audits"][name]["readings"]["begging"].keys() > {"rouge"}


def test_a_method_is_evaluated_by_metrics_on_the_way(
    unlearn: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    name = f"{example('metric', tmp_path)}:SENTENCES"
    words = ["--method", "npo", "--eval_strategy", "steps", "--eval_steps", 1, "--eval_metrics", "rouge", name]
    words += ["--eval_metric_kwargs", json.dumps({name: {"ends": "?"}})]
    words += ["--eval_max_rows", 2, "--save_strategy", "steps", "--save_steps", 1, "--load_best_model_at_end", "true"]
    words += ["--metric_for_best_model", "forget_rouge", "--greater_is_better", "false"]
    evaluated = [line for line in unlearn(*words) if "eval_forget_rouge" in line]
    assert len(evaluated) == 2 and {"eval_retain_rouge", "eval_forget_sentences"} <= evaluated[0].keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eval_strategy", "steps", "--eval_steps", 1], "eval_metrics says what eval_strategy computes"),
        (["--eval_metrics", "rouge"], "eval_metrics says what eval_strategy computes"),
        (["--eval_strategy", "steps", "--eval_metrics", "attribution"], "there is no judge: give validation_judge"),
        (["--eval_strategy", "steps", "--eval_metrics", "tow"], "the control is compared with afterwards"),
        (["--eval_strategy", "steps", "--eval_metrics", "rogue"], "did you mean rouge"),
        (["--eval_max_rows", 0], "eval_max_rows is 0"),
        (["--eval_metric_kwargs", '{"rouge": {}}'], "eval_metrics names none: name them too"),
        (
            ["--eval_strategy", "steps", "--eval_metrics", "rouge", "--eval_metric_kwargs", '{"rouge": {"n": 1}}'],
            "has no option n",
        ),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(
    words: list[Any], message: str, refused: Callable[..., str], model: Path, data: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = [*data, "--model_name_or_path", model, "--output_dir", out, "--method", "npo", *SMALL, *words]
    assert message in refused("unlearn", *given, output_dir=out)
