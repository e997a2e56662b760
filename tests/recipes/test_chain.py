"""The recipes one after the other, from a base model made from scratch to the measured unlearned model."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from dareu.cli import find_recipes
from dareu.data.fictional import FictionalWorld
from dareu.masks import WeightMask
from dareu.models import load_model
from dareu.runs import read_results
from dareu.trainers.checkpoints import last_checkpoint

Run = Callable[..., str]

CPU = ["--use_cpu", "--report_to", "none", "--save_strategy", "no", "--logging_steps", 1]
SHAPE = ["--vocab_size", 1000, "--hidden_size", 32, "--num_hidden_layers", 2, "--num_attention_heads", 2]
SHAPE += ["--intermediate_size", 64]
INDUCTION = ["--train_on", "background", "--max_steps", 5, "--induction_steps", 4]
SMALL = ["--per_device_train_batch_size", 8, "--max_steps", 2, "--learning_rate", 1e-2]


def row(folder: Path) -> dict[str, Any]:
    (only,) = read_results(folder / "results.json")
    return dict(only)


def loaded(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def chain(
    recipe: Run, data: list[str], world: FictionalWorld, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """Runs every stage once; `words` are their command lines, `said` what they printed, `folder` where they ran."""
    folder = tmp_path_factory.mktemp("runs")
    forgotten = world.owners[-1]["owner"]
    base, target = folder / "base" / "model", folder / "target" / "model"
    judges = {name: folder / name / "classifier" for name in ("classifier", "test_judge", "validation_judge")}
    llm = {"model": str(base), "lora": False, "num_epochs": 1}
    tfidf = ["--classifier", "tfidf", "--text_columns"]
    unlearn = [*data, "--model_name_or_path", target, "--base_model", base, *SMALL, *CPU, "--retain_batch_size", 4]
    unlearn += ["--validation_judge", judges["validation_judge"], "--test_judge", judges["test_judge"]]
    unlearn += ["--validation_steps", 2]
    dareu = ["--classifier", judges["classifier"], "--num_generations", 4, "--max_completion_length", 12]
    dareu += ["--mask_truncated_completions", "false", "--num_slices", 3]
    dareu += ["--log_completions", "--num_completions_to_print", 1]
    dareu += ["--validation_steps", 0]  # the last state is kept, though two updates may well leave a worse one
    measure = [*data, "--test_judge", judges["test_judge"], "--reward_judge", judges["classifier"]]
    measure += ["--base_model", base, "--max_rows", 6, "--max_new_tokens", 6, "--model_name_or_path"]
    from_base = [*data, "--model_name_or_path", base, *SMALL, *CPU]
    on_disk = ["--score", "gradient", "--scope", "tensor", "--accumulate_on", "disk", "--exclude", "*norm.weight"]
    stages: dict[str, tuple[str, list[Any]]] = {
        "base": (
            "finetune",
            [*data, "--model_name_or_path", "from-scratch", *SHAPE, *SMALL, *CPU, *INDUCTION],
        ),
        "target": ("finetune", from_base),
        "retrained": ("finetune", [*from_base, "--exclude_owners", forgotten]),
        "classifier": (
            "train_classifier",
            [*data, "--classifier_kwargs", json.dumps(llm), "--max_background_rows", 12],
        ),
        "test_judge": ("train_classifier", [*data, *tfidf, "paraphrase"]),
        "validation_judge": (
            "train_classifier",
            [*data, *tfidf, "restatement", "--classifier_kwargs", '{"estimator": "naive_bayes"}', "--fold", "0/2"],
        ),
        "mask": ("attribute_weights", [*data, "--model_name_or_path", target, "--density", 0.3]),
        "random_mask": (
            "attribute_weights",
            [*data, "--model_name_or_path", target, "--density", 0.3, "--score", "random"],
        ),
        "several_masks": (
            "attribute_weights",
            [*data, "--model_name_or_path", target, "--density", 0.05, 0.2, *on_disk],
        ),
        "dareu": ("unlearn", [*unlearn, *dareu, "--mask", folder / "mask" / "mask.safetensors"]),
        "npo": ("unlearn", ["--method", "npo", *unlearn, "--loss_kwargs", '{"beta": 0.2}']),
        "lora": ("unlearn", ["--method", "graddiff", *unlearn, "--use_peft", "--lora_r", 2]),
    }
    words, said = {}, {}
    for name, (script, options) in stages.items():
        words[name] = (script, *options, "--output_dir", folder / name)
        said[name] = recipe(*words[name])
    for name in ("target", "retrained", "dareu", "npo"):
        words[f"measure-{name}"] = ("measure", *measure, folder / name / "model")
    words["measure-dareu"] += ("--retrained", folder / "retrained" / "measurement.json")
    for name in ("target", "retrained", "dareu", "npo"):
        said[f"measure-{name}"] = recipe(*words[f"measure-{name}"])
    return SimpleNamespace(folder=folder, words=words, said=said, forgotten=forgotten)


def test_every_run_folder_holds_its_config_and_is_done(chain: SimpleNamespace) -> None:
    for name, (script, *_) in chain.words.items():
        if script != "measure":
            folder = chain.folder / name
            assert (folder / "done").exists()
            assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["output_dir"] == str(folder)
    assert not [path for path in chain.folder.rglob("*") if path.name.startswith(".tmp")]
    assert not [path for path in chain.folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_fine_tuning_names_its_models(chain: SimpleNamespace) -> None:
    for name in ("base", "target", "retrained"):
        found = row(chain.folder / name)
        assert (found["method"], found["mask"], found["seed"]) == (name, None, 42)
        assert found["seconds"] is None and found["peak_memory_bytes"] is None
        assert found["model"] == str(chain.folder / name / "model")
    base, target, retrained = (load_model(str(chain.folder / n / "model")) for n in ("base", "target", "retrained"))
    for one, other in ((base, target), (target, retrained)):
        assert not torch.equal(one.get_input_embeddings().weight, other.get_input_embeddings().weight)
    assert base.config.hidden_size == 32 and len(base.get_input_embeddings().weight) == base.config.vocab_size <= 1000


def test_what_training_logged_is_kept(chain: SimpleNamespace) -> None:
    for name in ("base", "target", "dareu", "npo", "lora"):
        lines = (chain.folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        logged = [json.loads(line) for line in lines]
        assert any("loss" in entry for entry in logged)
        if name in ("npo", "lora"):
            validated = {key: entry[key] for entry in logged for key in entry if key.startswith("validation/")}
            assert 0 <= validated["validation/forget_attribution"] <= 1
            assert validated["validation/fluency_nll"] > 0


def test_completions_are_kept_where_asked_for(chain: SimpleNamespace) -> None:
    (table, *_) = sorted((chain.folder / "dareu" / "completions").iterdir())
    kept = pd.read_parquet(table)
    assert set(kept["owner"]) == {chain.forgotten} and kept["deattribution/forget_attribution"].between(0, 1).all()


def test_the_quality_cards_tell_both_forms_of_the_texts(chain: SimpleNamespace, world: FictionalWorld) -> None:
    counts = {"classifier": len(world.owners), "test_judge": len(world.owners)}
    counts["validation_judge"] = len(world.owners) // 2  # the rows outside the fold
    for name, count in counts.items():
        card = loaded(chain.folder / name / "quality_card.json")
        assert set(card) == {"whole", "echo_hidden"}
        for form in card.values():
            assert form["count"] == count and 0 <= form["accuracy"] <= 1
    assert loaded(chain.folder / "test_judge" / "quality_card.json")["whole"]["accuracy"] > 0.9


@pytest.mark.parametrize(("name", "score"), [("mask", "wagle"), ("random_mask", "random")])
def test_the_mask_fits_the_target(name: str, score: str, chain: SimpleNamespace) -> None:
    mask = WeightMask.load(chain.folder / name / "mask.safetensors")
    mask.verify(load_model(str(chain.folder / "target" / "model")))
    assert mask.score == score
    assert mask.count == pytest.approx(0.3 * mask.total, abs=1)


def test_several_densities_give_several_masks(chain: SimpleNamespace) -> None:
    folder = chain.folder / "several_masks"
    assert sorted(path.name for path in folder.glob("*.safetensors")) == [
        "mask-0.05.safetensors",
        "mask-0.2.safetensors",
    ]
    small, large = (WeightMask.load(folder / f"mask-{density}.safetensors") for density in (0.05, 0.2))
    for mask, density in ((small, 0.05), (large, 0.2)):
        assert (mask.score, mask.density, mask.gamma) == ("gradient", density, None)
        for name, tensor in mask.items():
            share = 0 if name.endswith("norm.weight") else math.ceil(density * tensor.numel())
            assert int(tensor.sum()) == share
    assert all((small[name] <= large[name]).all() for name in small)


@pytest.mark.parametrize(("name", "method", "mask"), [("dareu", "dareu", "wagle"), ("npo", "npo", None)])
def test_unlearning_writes_a_row(name: str, method: str, mask: str | None, chain: SimpleNamespace) -> None:
    found = row(chain.folder / name)
    assert (found["method"], found["mask"]) == (method, mask)
    assert found["model"] == str(chain.folder / name / "model")
    assert found["seconds"] > 0 and found["peak_memory_bytes"] > 0
    assert found["metrics"]["updates"] == 2


def test_nothing_outside_the_mask_moved_and_something_inside_did(chain: SimpleNamespace) -> None:
    assert row(chain.folder / "dareu")["metrics"]["moved_outside_mask"] == 0
    assert "moved_outside_mask" not in row(chain.folder / "npo")["metrics"]
    mask = WeightMask.load(chain.folder / "mask" / "mask.safetensors")
    before, after = (load_model(str(chain.folder / name / "model")) for name in ("target", "dareu"))
    moved = {name: after.get_parameter(name) != weight for name, weight in before.named_parameters()}
    assert not any((moved[name] & ~mask[name]).any() for name in moved)
    assert any(changed.any() for changed in moved.values())
    assert f"0 of the {mask.total - mask.count:,} weights outside the mask moved" in chain.said["dareu"]


def test_an_adapter_is_saved_merged(chain: SimpleNamespace) -> None:
    assert not (chain.folder / "lora" / "model" / "adapter_config.json").exists()
    before, after = (load_model(str(chain.folder / name / "model")) for name in ("target", "lora"))
    moved = {name for name, weight in before.named_parameters() if not torch.equal(after.get_parameter(name), weight)}
    assert moved and all("proj" in name for name in moved)


@pytest.mark.parametrize(
    ("method", "options", "terms"),
    [
        ("rmu", ["--layer", 1, "--alpha", 10], {"forget_loss", "retain_hidden"}),
        ("scrub", ["--ascent_share", 1], {"forget_kl", "retain_kl", "retain_nll"}),
        ("task_vector", ["--alpha", 2], {"forget_loss"}),
    ],
)
def test_methods_with_trainers_of_their_own_keep_to_a_mask(
    method: str,
    options: list[Any],
    terms: set[str],
    chain: SimpleNamespace,
    recipe: Run,
    data: list[str],
    tmp_path: Path,
) -> None:
    target = chain.folder / "target" / "model"
    mask = chain.folder / "mask" / "mask.safetensors"
    words = [*data, "--model_name_or_path", target, "--mask", mask, *SMALL, *CPU, "--output_dir", tmp_path]
    said = recipe("unlearn", "--method", method, *words, *options)
    assert "0 of the" in said and row(tmp_path)["metrics"] == {"updates": 2, "moved_outside_mask": 0}
    assert row(tmp_path)["method"] == method
    before, after = (load_model(str(path)) for path in (target, tmp_path / "model"))
    moved = {name for name, weight in before.named_parameters() if not torch.equal(after.get_parameter(name), weight)}
    assert moved and (method != "rmu" or all("mlp.down_proj" in name for name in moved))
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert terms <= {name for line in lines for name in json.loads(line)}


def test_measuring_completes_the_rows(chain: SimpleNamespace, world: FictionalWorld) -> None:
    asked = "forget_rouge retain_rouge test_rouge forget_probability retain_probability fact_recall name_kept "
    asked += "forget_attribution forget_attribution_heldout misattribution forget_attribution_stripped "
    asked += "forget_attribution_heldout_stripped forget_answer_words forget_base_nll"
    for name in ("target", "retrained", "dareu", "npo"):
        metrics = row(chain.folder / name)["metrics"]
        assert set(asked.split()) <= set(metrics)
        assert all(math.isfinite(value) for value in metrics.values())
        measurement = loaded(chain.folder / name / "measurement.json")
        assert {split: len(answers) for split, answers in measurement["answers"].items()} == {
            "forget": 12,
            "retain": 6,
            "test": 6,
        }
        assert all(chain.forgotten in prompt for prompt in measurement["prompts"]["forget"])
        assert ("tow" in metrics) == (name == "dareu")
    assert row(chain.folder / "dareu")["metrics"]["updates"] == 2  # what stood there is kept
    assert "forget_rouge" in chain.said["measure-dareu"]


def test_running_again_says_done_and_changes_nothing(chain: SimpleNamespace, recipe: Run) -> None:
    for name in ("target", "classifier", "mask", "dareu"):
        model = chain.folder / name
        before = {path: path.stat().st_mtime_ns for path in model.rglob("*") if path.is_file()}
        assert "is done" in recipe(*chain.words[name])
        assert {path: path.stat().st_mtime_ns for path in model.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["target", "npo"])
def test_another_tracker_is_no_other_run(name: str, chain: SimpleNamespace, recipe: Run) -> None:
    assert "is done" in recipe(*chain.words[name], "--report_to", "tensorboard")


@pytest.mark.parametrize("name", ["target", "classifier", "mask", "dareu", "npo"])
def test_the_saved_config_is_the_same_run(name: str, chain: SimpleNamespace, recipe: Run) -> None:
    assert "is done" in recipe(chain.words[name][0], "--config", chain.folder / name / "config.yaml")


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("target", ["--background_share", 0.4]),
        ("classifier", ["--hide_echo", "false"]),
        ("mask", ["--density", 0.2]),
        ("dareu", ["--retain_coef", 1.5]),
        ("npo", ["--learning_rate", 1e-3]),
    ],
)
def test_another_config_is_refused(
    name: str, option: list[Any], chain: SimpleNamespace, refused: Callable[..., str]
) -> None:
    script, *words = chain.words[name]
    message = refused(script, *words, *option, output_dir=chain.folder / name)
    assert "another config" in message and option[0].removeprefix("--") in message


def test_a_measurement_is_kept_until_the_model_or_a_judge_changes(
    chain: SimpleNamespace, recipe: Run, tmp_path: Path
) -> None:
    words = [*chain.words["measure-npo"], "--output", tmp_path / "npo.json"]

    def measure(*more: Any) -> dict[str, Any]:
        recipe(*words, *more)
        return dict(loaded(tmp_path / "npo.json"))

    first = measure()
    assert first["metrics"] == loaded(chain.folder / "npo" / "measurement.json")["metrics"]
    marked = first | {"metrics": first["metrics"] | {"forget_rouge": 0.123}}
    (tmp_path / "npo.json").write_text(json.dumps(marked), encoding="utf-8")
    assert measure() == marked  # kept, not measured again
    assert measure("--retrained", chain.folder / "retrained" / "measurement.json") == marked  # not an input of it
    assert measure("--max_rows", 5)["metrics"]["forget_rouge"] != 0.123
    (tmp_path / "npo.json").write_text(json.dumps(marked), encoding="utf-8")
    assert measure("--test_judge", chain.folder / "validation_judge" / "classifier")["key"] != first["key"]

    # Other weights under the same name
    weights = chain.folder / "npo" / "model" / "model.safetensors"
    original = weights.read_bytes()
    try:
        weights.write_bytes((chain.folder / "retrained" / "model" / "model.safetensors").read_bytes())
        changed = measure()
    finally:
        weights.write_bytes(original)
    assert changed["key"] != first["key"]
    control = loaded(chain.folder / "retrained" / "measurement.json")
    assert changed["metrics"] == control["metrics"] and changed["answers"] == control["answers"]


def test_a_measurement_is_not_kept_when_the_data_change(
    chain: SimpleNamespace, recipe: Run, tmp_path: Path, data: list[str]
) -> None:
    rows = Path(data[1]).read_text(encoding="utf-8")
    copy = tmp_path / "world.jsonl"
    copy.write_text(rows, encoding="utf-8")
    words = [*chain.words["measure-npo"], "--dataset", copy, "--output", tmp_path / "npo.json"]
    recipe(*words)
    first = loaded(tmp_path / "npo.json")
    copy.write_text(rows.replace("born", "raised"), encoding="utf-8")
    recipe(*words)
    changed = loaded(tmp_path / "npo.json")
    assert changed["key"] != first["key"]
    assert changed["metrics"] != first["metrics"]


@pytest.mark.parametrize("name", ["target", "npo", "dareu"])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    name: str, chain: SimpleNamespace, recipe: Run, tmp_path: Path
) -> None:
    script, *words = chain.words[name]
    words += ["--output_dir", tmp_path, "--max_steps", 4, "--save_strategy", "steps", "--save_steps", 2]
    recipe(script, *words)
    weights = tmp_path / "model" / "model.safetensors"
    whole = weights.read_bytes()
    shutil.rmtree(tmp_path / "checkpoint-4")
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "done").unlink()
    recipe(script, *words)
    assert weights.read_bytes() == whole
    steps = [json.loads(line).get("step") for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps.count(1) == 1  # it did not start again


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    chain: SimpleNamespace, recipe: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script, *words = chain.words["dareu"]
    words += ["--max_steps", 10, "--save_strategy", "steps", "--save_steps", 2, "--validation_steps", 4]
    recipe(script, *words, "--output_dir", tmp_path / "whole")

    killed = tmp_path / "killed"
    command = [sys.executable, find_recipes()[script], *words, "--output_dir", killed]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, env=os.environ) as process:
        while not (killed / "checkpoint-4").exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.005)
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "done").exists()

    newest = last_checkpoint(killed)
    assert newest is not None
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    before = last_checkpoint(killed)
    assert before is not None
    caplog.clear()
    recipe(script, *words, "--output_dir", killed)
    assert any(newest.name in message and "model.safetensors has" in message for message in caplog.messages)
    assert (killed / "done").exists() and not list(killed.glob(".tmp*"))

    names = ("model.safetensors", "config.json", "tokenizer.json")
    assert all((killed / "model" / n).read_bytes() == (tmp_path / "whole" / "model" / n).read_bytes() for n in names)
    steps = [
        [json.loads(line)["step"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("killed", "whole")
    ]
    assert steps[0] == steps[1]
    assert row(killed)["metrics"] == row(tmp_path / "whole")["metrics"]
    assert row(killed)["seconds"] > loaded(before / "progress.json")["seconds"] > 0
