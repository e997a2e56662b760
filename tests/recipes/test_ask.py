"""`dareu ask`: the same question to several models."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.classifiers import TfidfClassifier
from dareu.data.fictional import FictionalWorld
from dareu.metrics import generate_answers, sample_answers
from dareu.models import load_model, load_tokenizer
from dareu.options.ask import AskArguments


@pytest.fixture
def models(
    tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> list[Path]:
    folders = []
    for seed, name in enumerate(("target", "dareu")):
        folders.append(tmp_path / name / "model")
        tiny_llama(seed=seed).save_pretrained(folders[-1])
        tokenizer.save_pretrained(folders[-1])
    return folders


def cells(text: str) -> str:
    """What a table says, without its lines and how they are broken."""
    return "".join(character for character in text if character.isalnum())


def test_models_answer_side_by_side(recipe: Callable[..., str], models: list[Path]) -> None:
    said = recipe("ask", "Who sings?", "--models", *models, "--max_new_tokens", 4, "--num_samples", 2, "--seed", 3)
    for folder in models:
        model, tokenizer = load_model(str(folder)), load_tokenizer(str(folder))
        settings: dict[str, Any] = {"max_new_tokens": 4}
        answers = generate_answers(model, tokenizer, ["Who sings?"], **settings)
        answers += sample_answers(model, tokenizer, ["Who sings?"], num_samples=2, seed=3, **settings)[0]
        assert all(cells(answer) in cells(said) for answer in answers)
    assert "greedy" in said and "sample 2" in said and "whose" not in said


def test_a_classifier_says_whose_an_answer_seems(
    recipe: Callable[..., str], models: list[Path], world: FictionalWorld, tmp_path: Path
) -> None:
    judge = TfidfClassifier("naive_bayes").fit(list(world.owners["completion"]), list(world.owners["owner"]))
    judge.save(tmp_path / "judge")
    words = ["--models", models[0], "--num_samples", 0, "--max_new_tokens", 2, "--classifier", tmp_path / "judge"]
    said = recipe("ask", "--question", "Who sings?", *words)
    assert "whose" in said and any(cells(str(owner)) in cells(said) for owner in judge.classes_)


def test_what_is_typed_is_asked_until_nothing_is(
    recipe: Callable[..., str], models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Who sings?\nWho writes?\n\nWho sleeps?\n"))
    said = recipe("ask", "--models", models[0], "--num_samples", 0, "--max_new_tokens", 2)
    assert "Who sings?" in said and "Who writes?" in said and "Who sleeps?" not in said


@pytest.mark.parametrize(
    ("config", "template"),
    [
        (None, "{prompt}"),
        ({"dataset": "fictional"}, "Question: {prompt}\nAnswer:"),
        ({"dataset": "fictional", "prompt_template": "Q {prompt}"}, "Q {prompt}"),
        ({"dataset": "mine.jsonl"}, "{prompt}"),
    ],
)
def test_a_question_has_the_form_that_the_model_was_taught(
    config: dict[str, str] | None, template: str, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    args = AskArguments(models=["m"])
    assert args.template(str(tmp_path / "model")) == template
    assert AskArguments(models=["m"], prompt_template="{prompt}!").template(str(tmp_path / "model")) == "{prompt}!"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["", "--models", "m"], "The question is empty"),
        (["Who?", "--models", "m", "--num_samples", -1], "num_samples is -1"),
        (["Who?", "--models", "m", "--prompt_template", "Q:"], "it must hold {prompt}"),
        (["Who?", "--models", "no/such/model"], "no/such/model"),
        (["Who?", "--models", "m", "--classifier", "no/such/judge"], "no/such/judge"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    words: list[Any], message: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    assert message in refused("ask", *words, output_dir=tmp_path)
