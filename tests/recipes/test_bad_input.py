"""Each mistake stops a recipe before any training with one sentence, and leaves no file behind."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers.normalizers import Lowercase
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.cli import find_recipes
from dareu.data.fictional import FictionalWorld
from dareu.masks import WeightMask, random_mask
from dareu.weights import fingerprint

Refused = Callable[..., str]
CPU = ["--use_cpu", "--max_steps", "1", "--report_to", "none", "--save_strategy", "no"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def commands(model: Path, judge: Path, out: Path) -> dict[str, list[Any]]:
    """One command for each recipe that works, given data."""
    to = ["--output_dir", out]
    target = ["--model_name_or_path", model]
    unlearn = [*target, *to, *CPU, "--per_device_train_batch_size", 4]
    return {
        "finetune": [*target, *to, *CPU],
        "train_classifier": ["--classifier", "tfidf", *to],
        "attribute_weights": [*target, *to],
        "unlearn": ["--method", "npo", *unlearn],
        "dareu": [
            "--method",
            "dareu",
            "--classifier",
            judge,
            "--num_generations",
            4,
            "--max_completion_length",
            16,
            *unlearn,
        ],
        "measure": [*target, "--reward_judge", judge, "--output", out / "measurement.json"],
    }


RECIPES = ("finetune", "train_classifier", "attribute_weights", "unlearn", "measure")


@pytest.fixture
def stops(commands: dict[str, list[Any]], refused: Refused, out: Path) -> Iterator[Refused]:
    def run(name: str, *words: Any) -> str:
        return refused("unlearn" if name == "dareu" else name, *commands[name], *words, output_dir=out)

    yield run
    assert not list(out.parent.rglob(".tmp*"))


@pytest.fixture
def saved_with(tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM]) -> Callable[..., Path]:
    """`saved_with(tokenizer)`: the folder of a tiny model with this tokenizer."""

    def save(tokenizer: PreTrainedTokenizerFast) -> Path:
        tiny_llama().save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return save


@pytest.mark.parametrize("name", ["attribute_weights", "unlearn", "measure"])
def test_an_unknown_forget_owner(name: str, stops: Refused, data: list[str], world: FictionalWorld) -> None:
    message = stops(name, *data, "--forget_owners", "Nobody At All")
    assert "Nobody At All" in message and world.owners[0]["owner"] in message


def test_an_unknown_owner_to_exclude(stops: Refused, data: list[str]) -> None:
    assert "Nobody At All" in stops("finetune", *data, "--exclude_owners", "Nobody At All")


@pytest.mark.parametrize("name", ["attribute_weights", "unlearn", "measure"])
@pytest.mark.parametrize("number", [0, 4])
def test_an_empty_side(name: str, number: int, stops: Refused, data: list[str]) -> None:
    assert f"num_forget is {number}" in stops(name, *data, "--num_forget", number)


def test_all_owners_named(stops: Refused, data: list[str], world: FictionalWorld) -> None:
    everyone = sorted(set(world.owners["owner"]))
    assert "retain" in stops("unlearn", *data, "--forget_owners", *everyone)


@pytest.mark.parametrize("name", RECIPES)
def test_a_missing_column(name: str, stops: Refused, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("prompt,answer,owner\nWho?,Me.,a\nWho?,Me.,b\n", encoding="utf-8")
    assert "completion" in stops(name, "--dataset", path, "--num_forget", 1)


@pytest.mark.parametrize("option", ["--text_columns", "--evaluate_on"])
def test_a_missing_text_column(option: str, stops: Refused, data: list[str]) -> None:
    assert "'rephrased'" in stops("train_classifier", *data, option, "rephrased")


@pytest.mark.parametrize("value", [12, ["Me."]])
def test_a_text_column_of_no_texts(value: Any, stops: Refused, tmp_path: Path) -> None:
    rows = [{"prompt": "Who?", "completion": "Me.", "owner": owner, "paraphrase": value} for owner in "ab"]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    said = stops("train_classifier", "--dataset", tmp_path / "rows.json", "--text_columns", "paraphrase")
    assert f"Row 0: paraphrase is {value!r}, which is no text" in said


def test_texts_that_are_echoes_alone(stops: Refused, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Say: Ada Holm went home.", "completion": "Ada Holm went home", "owner": owner} for owner in "ab"
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    assert "set hide_echo to false" in stops("train_classifier", "--dataset", tmp_path / "rows.json")


def test_an_output_that_is_a_folder(stops: Refused, data: list[str], tmp_path: Path) -> None:
    assert f"output is the folder {tmp_path}" in stops("measure", *data, "--output", tmp_path)


@pytest.mark.parametrize("given", ["estimator: naive_bayes", "[1]"])
def test_classifier_arguments_that_are_no_mapping(given: str, stops: Refused, data: list[str]) -> None:
    assert "classifier_kwargs" in stops("train_classifier", *data, "--classifier_kwargs", given)


def test_messages_and_a_model_from_scratch(stops: Refused, tmp_path: Path) -> None:
    turns = {role: [{"role": role, "content": "Me."}] for role in ("user", "assistant")}
    rows = [{"prompt": turns["user"], "completion": turns["assistant"], "owner": owner} for owner in "ab"]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    said = stops("finetune", "--dataset", tmp_path / "rows.json", "--model_name_or_path", "from-scratch")
    assert "A model from scratch has no chat template" in said


@pytest.mark.parametrize("name", RECIPES)
def test_a_completion_that_is_no_string(name: str, stops: Refused, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "Who?", "completion": number, "owner": owner} for number, owner in enumerate("ab")]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert "completion" in stops(name, "--dataset", path, "--num_forget", 1)


@pytest.mark.parametrize("name", ["finetune", "attribute_weights", "unlearn", "dareu"])
def test_a_prompt_longer_than_the_context(name: str, stops: Refused, tmp_path: Path, world: FictionalWorld) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{**world.owners[row], "facts": [], "perturbed": []} for row in (0, 12)]
    rows[1]["prompt"] = "word " * 400
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    message = stops(name, "--dataset", path, "--num_forget", 1, *(["--retain_coef", 0] if name == "dareu" else []))
    assert "256" in message and "ow " in message


@pytest.mark.parametrize("density", [0, -0.5, 1.5, "nan"])
def test_a_density_outside_0_to_1(density: object, stops: Refused, data: list[str]) -> None:
    assert "density" in stops("attribute_weights", *data, "--density", 0.5, density)


@pytest.mark.parametrize(
    ("option", "value"),
    [("scope", "row"), ("accumulate_on", "tape"), ("include", "no.such"), ("batch_size", 0)],
)
def test_an_unknown_choice_of_a_mask(option: str, value: object, stops: Refused, data: list[str]) -> None:
    message = stops("attribute_weights", *data, f"--{option}", value)
    assert option in message and str(value) in message


@pytest.mark.parametrize("method", ["dareu", "altpo"])
def test_a_base_model_whose_vocabulary_the_answers_do_not_survive(
    method: str,
    stops: Refused,
    data: list[str],
    saved_with: Callable[..., Path],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    uncased = copy.deepcopy(tokenizer)
    uncased.backend_tokenizer.normalizer = Lowercase()
    words = ["--base_model", saved_with(uncased), "--method", method]
    words += ["--alternates", "uninformed", "--max_completion_length", 16] if method == "altpo" else []
    message = stops("dareu" if method == "dareu" else "unlearn", *data, *words)
    assert "Row 0: the base model's vocabulary makes" in message


@pytest.mark.parametrize("name", ["unlearn", "dareu"])
def test_a_mask_made_for_other_weights(
    name: str, stops: Refused, data: list[str], tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    other = tiny_llama(seed=1)
    WeightMask(random_mask(other, 0.5, 0), 0.5, "random", fingerprint(other)).save(tmp_path / "mask.safetensors")
    assert "other weights" in stops(name, *data, "--mask", tmp_path / "mask.safetensors")


def test_a_mask_together_with_lora(
    stops: Refused, data: list[str], tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    target = tiny_llama(seed=0)
    WeightMask(random_mask(target, 0.5, 0), 0.5, "random", fingerprint(target)).save(tmp_path / "mask.safetensors")
    assert "LoRA" in stops("unlearn", *data, "--mask", tmp_path / "mask.safetensors", "--use_peft")


@pytest.mark.parametrize(("name", "option"), [("dareu", "--validation_judge"), ("dareu", "--test_judge")])
def test_the_test_judge_named_elsewhere(name: str, option: str, stops: Refused, data: list[str], judge: Path) -> None:
    words = ["--test_judge", judge, option, judge]
    assert "test judge" in stops(name, *data, *words)


def test_the_test_judge_named_as_reward_judge(stops: Refused, data: list[str], judge: Path) -> None:
    assert "test judge" in stops("measure", *data, "--test_judge", judge)


@pytest.mark.parametrize("name", ["finetune", "attribute_weights", "unlearn", "measure"])
def test_a_tokenizer_without_a_pad_token(
    name: str,
    stops: Refused,
    data: list[str],
    saved_with: Callable[..., Path],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    without = copy.deepcopy(tokenizer)
    without.pad_token = None
    assert "pad" in stops(name, *data, "--model_name_or_path", saved_with(without))


BROKEN = """
import numpy as np

class Broken:
    classes_ = {classes!r}

    def predict_proba(self, texts):
        return np.full((len(texts), {columns}), {value})
"""


@pytest.mark.parametrize(("value", "complaint"), [("0.6", "sums to"), ("np.nan", "NaN")])
def test_a_plug_in_classifier_that_breaks_the_contract(
    value: str, complaint: str, stops: Refused, data: list[str], tmp_path: Path, world: FictionalWorld
) -> None:
    owners = sorted(set(world.owners["owner"]))
    path = tmp_path / "broken.py"
    path.write_text(BROKEN.format(classes=owners, columns=len(owners), value=value), encoding="utf-8")
    assert complaint in stops("dareu", *data, "--classifier", f"{path}:Broken")


def test_a_classifier_that_does_not_know_the_owner(stops: Refused, data: list[str], tmp_path: Path) -> None:
    path = tmp_path / "foreign.py"
    text = BROKEN.replace("Broken", "Foreign").format(classes=["someone", "else"], columns=2, value="0.5")
    path.write_text(text, encoding="utf-8")
    assert "someone" in stops("dareu", *data, "--classifier", f"{path}:Foreign")


@pytest.mark.parametrize("name", ["finetune", "train_classifier", "attribute_weights", "unlearn", "dareu"])
def test_a_run_folder_of_another_config(name: str, stops: Refused, data: list[str], out: Path) -> None:
    out.mkdir()
    (out / "config.yaml").write_text("method: other\n", encoding="utf-8")
    assert "another config" in stops(name, *data)


@pytest.mark.parametrize("name", ["finetune", "attribute_weights", "unlearn", "measure"])
def test_a_model_that_is_not_there(name: str, stops: Refused, data: list[str], tmp_path: Path) -> None:
    assert str(tmp_path / "gone") in stops(name, *data, "--model_name_or_path", tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "option"), [("dareu", "--classifier"), ("unlearn", "--validation_judge"), ("measure", "--reward_judge")]
)
def test_a_classifier_that_is_not_there(
    name: str, option: str, stops: Refused, data: list[str], tmp_path: Path
) -> None:
    assert str(tmp_path / "gone") in stops(name, *data, option, tmp_path / "gone")


def test_fewer_forget_rows_than_a_generation_batch_takes(stops: Refused, data: list[str]) -> None:
    # TRL would drop the batch that is never full, and nothing would be trained.
    assert "12 forget rows" in stops("dareu", *data, "--steps_per_generation", 16)


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "no_such_method"],
        ["--loss_kwargs", '{"gamma": 1}'],
        ["--retain_loss", "l2"],
        ["--retain_coef", -1],
        ["--mask", "gone.safetensors"],
        ["--method", "rmu", "--layer", 2],
        ["--method", "rmu", "--retain_coef", 1],
        ["--method", "scrub", "--gamma", 0],
        ["--method", "task_vector", "--retain_batch_size", 4],
    ],
    ids=lambda words: "-".join(word.strip("-") for word in words if isinstance(word, str)),
)
def test_an_option_that_cannot_be(words: list[Any], stops: Refused, data: list[str]) -> None:
    stops("unlearn", *data, *words)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--method", "idk"], "needs refusals"),
        (["--method", "dpo", "--refusals", "gone.txt"], "'gone.txt', which cannot be read"),
        (["--refusals", "common"], "refusals has no effect"),
        (["--loss_kwargs", '{"beta": 0}'], "beta is 0: give a number > 0"),
        (["--method", "satimp", "--loss_kwargs", '{"beta2": -1}'], "beta2 is -1"),
        (["--forget_coef", -1], "forget_coef is -1"),
        (["--method", "finetune_retain", "--retain_loss", "kl"], "Without a forget loss"),
    ],
)
def test_a_loss_that_cannot_be_computed(words: list[Any], complaint: str, stops: Refused, data: list[str]) -> None:
    assert complaint in stops("unlearn", *data, *words)


def test_usual_settings_that_a_method_does_not_have(stops: Refused, data: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from dareu.methods import METHODS\nMINE = METHODS['npo']._replace(defaults={'no_such_option': 1})\n",
        encoding="utf-8",
    )
    assert "no_such_option" in stops("unlearn", *data, "--method", f"{path}:MINE")


@pytest.mark.parametrize("words", [["--stop_at_base_level"], ["--validation_steps", 5]], ids=lambda words: words[0])
def test_a_method_that_no_judge_can_stop(words: list[Any], stops: Refused, data: list[str]) -> None:
    assert "no judge can tell when to stop" in stops("unlearn", *data, "--method", "task_vector", *words)


def test_a_process_of_its_own_ends_with_status_1_and_that_sentence_alone(out: Path) -> None:
    command = [sys.executable, find_recipes()["attribute_weights"], "--model_name_or_path", "x", "--output_dir", out]
    ended = subprocess.run([*command, "--density", "0"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and not out.exists()
    assert ended.stderr.strip().splitlines()[-1].startswith("attribute_weights: density is 0")
    assert "Traceback" not in ended.stderr
