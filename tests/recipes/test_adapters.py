"""`unlearn` with adapters, fresh, continued, merged or not, and with bfloat16 weights under a mask."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.classifiers import LLMClassifier
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.models import load_adapter, load_model, load_to_read, save_model
from dareu.models.adapters import adapter_base
from dareu.options.policy import PolicyArguments
from dareu.weights import CheckpointWeights, fingerprint

TRAIN = ["--method", "npo", "--use_cpu", "--max_steps", 2, "--learning_rate", 1e-2, "--per_device_train_batch_size", 4]
TRAIN += ["--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true"]
IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])


@pytest.fixture(scope="module")
def target(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> Path:
    folder = tmp_path_factory.mktemp("models") / "target"
    tiny_llama(seed=0).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target that is an adapter; its folder holds no tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "adapter"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(load_model(str(target)), LoraConfig(r=2, target_modules=["q_proj"]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = load_model(str(folder)).eval()(IDS).logits
    return found


def test_a_fresh_adapter_may_stay_one_and_can_be_measured(
    recipe: Callable[..., str], data: list[str], target: Path, tmp_path: Path
) -> None:
    words = [*TRAIN, *data, "--model_name_or_path", target, "--use_peft", "--lora_r", 2]
    merged, alone = tmp_path / "merged", tmp_path / "alone"
    recipe("unlearn", *words, "--output_dir", merged)
    recipe("unlearn", *words, "--output_dir", alone, "--merge_adapter", "false")
    assert (alone / "model" / "adapter_model.safetensors").exists()
    assert adapter_base(str(alone / "model")) == str(target.resolve()) and adapter_base(str(merged / "model")) is None
    torch.testing.assert_close(logits(alone / "model"), logits(merged / "model"), atol=1e-5, rtol=1e-5)
    assert (logits(alone / "model") - logits(target)).abs().max() > 1e-3
    for folder in (alone, merged):
        recipe("measure", *data, "--model_name_or_path", folder / "model", "--max_new_tokens", 4)
    metrics = [json.loads((folder / "measurement.json").read_text())["metrics"] for folder in (alone, merged)]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-4)


def test_a_target_that_is_an_adapter_is_merged_or_trained_on(
    recipe: Callable[..., str], data: list[str], target: Path, adapter: Path, tmp_path: Path
) -> None:
    words = [*TRAIN, *data, "--model_name_or_path", adapter, "--lora_r", 2]
    recipe("unlearn", *words, "--output_dir", tmp_path / "dense")
    recipe("unlearn", *words, "--output_dir", tmp_path / "fresh", "--use_peft")
    on = [*words, "--continue_adapter", "--dtype", "bfloat16"]
    recipe("unlearn", *on, "--output_dir", tmp_path / "on", "--merge_adapter", "false")
    for name in ("dense", "fresh", "on"):
        assert (logits(tmp_path / name / "model") - logits(adapter)).abs().max() > 1e-3
    assert [adapter_base(str(tmp_path / name / "model")) for name in ("dense", "fresh", "on")] == [
        None,
        None,
        str(target.resolve()),
    ]


@pytest.mark.filterwarnings("ignore:`lora_bias=True`", "ignore:.*LoRA tensor.* have invalid shape")  # LoRA's biases
def test_an_adapter_that_cannot_be_merged_is_refused_before_training_and_can_be_measured(
    recipe: Callable[..., str], data: list[str], target: Path, tmp_path: Path
) -> None:
    """A LoRA with a bias, on a base whose layers have none."""
    config = LoraConfig(r=2, target_modules=["q_proj"], lora_bias=True, lora_dropout=0.5)
    model = get_peft_model(load_model(str(target)), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # weights and biases
            torch.nn.init.constant_(parameter, 0.5)
    model.save_pretrained(tmp_path / "biased")
    with torch.no_grad():
        read = load_to_read(str(tmp_path / "biased"))(IDS).logits
        assert torch.equal(read, model.eval()(IDS).logits) and not torch.allclose(read, logits(target))
    words = [*TRAIN, *data, "--model_name_or_path", tmp_path / "biased", "--continue_adapter"]
    reason = "cannot be merged into .*q_proj .*merge_adapter=False"
    with pytest.raises(SystemExit, match=reason):
        recipe("unlearn", *words, "--output_dir", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    recipe("measure", *data, "--model_name_or_path", tmp_path / "biased", "--output", tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["metrics"]["forget_probability"] > 0
    recipe("unlearn", *words, "--output_dir", tmp_path / "on", "--merge_adapter", "false")
    assert (tmp_path / "on" / "model" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, KeyError, OSError])
def test_a_training_is_not_lost_where_merging_fails(
    error: type[Exception],
    adapter: Path,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(_: Any) -> Any:
        raise error("not enough memory:\nyou tried to allocate")

    path, trained, expected = tmp_path / "model", load_adapter(str(adapter)), logits(adapter)
    monkeypatch.setattr("dareu.models.saving.merge_adapter", fails)
    save_model(trained, tokenizer, path, merge=True)
    assert adapter_base(str(path)) is not None and torch.equal(logits(path), expected)
    assert "measure and ask take it as it is" in caplog.text
    monkeypatch.undo()
    save_model(trained, tokenizer, path, merge=True)
    assert adapter_base(str(path)) is None
    torch.testing.assert_close(logits(path), expected)


def test_quantised_weights_are_not_trained(
    refused: Callable[..., str],
    data: list[str],
    target: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, load in (("load_model", load_model), ("load_adapter", load_adapter)):

        def quantised(path: str, dtype: torch.dtype, load: Callable[..., Any] = load) -> Any:
            model = load(path, dtype=dtype)
            getattr(model, "get_base_model", lambda: model)().is_quantized = True
            return model

        monkeypatch.setattr(f"dareu.options.policy.{name}", quantised)
    for model, *words in ((target,), (target, "--use_peft"), (adapter, "--continue_adapter")):
        out = tmp_path / "out"
        given = [*TRAIN, *data, "--model_name_or_path", model, "--output_dir", out, *words]
        said = refused("unlearn", *given, output_dir=out)
        assert f"The weights of {model} are quantised" in said and "merge_adapter=False" in said
    options = PolicyArguments(model_name_or_path=str(target), use_peft=True, merge_adapter=False)
    assert options.load().is_quantized


def test_a_classifier_reads_with_the_adapter_of_its_model(
    recipe: Callable[..., str], data: list[str], adapter: Path, tmp_path: Path
) -> None:
    """Untrained, it is the merged model; the tokenizer is the base's."""
    options = {"model": str(adapter), "lora": False, "learning_rate": 0.0, "num_epochs": 1}
    words = [*data[:-2], "--classifier", "llm", "--classifier_kwargs", json.dumps(options), "--output_dir", tmp_path]
    recipe("train_classifier", *words)
    read = LLMClassifier.load(tmp_path / "classifier", device="cpu").backbone_
    for name, weight in load_model(str(adapter)).base_model.named_parameters():
        assert torch.equal(read.get_parameter(name), weight)


def test_a_run_that_cannot_have_learnt_anything_says_so_last(
    recipe: Callable[..., str], data: list[str], target: Path, tmp_path: Path
) -> None:
    words = [*TRAIN, *data, "--model_name_or_path", target, "--learning_rate", 0]
    said = recipe("unlearn", *words, "--output_dir", tmp_path / "x").splitlines()[-1]
    assert said == "WARNING: nothing has been forgotten: no weight has moved."
    again = [*words, "--strict", "--save_strategy", "steps", "--save_steps", 1, "--output_dir", tmp_path / "y"]
    for _ in range(2):  # the second goes on from the last checkpoint
        with pytest.raises(SystemExit, match="Nothing has been forgotten: no weight has moved"):
            recipe("unlearn", *again)
        assert not (tmp_path / "y" / "done").exists()


def test_a_mask_trains_bfloat16_weights(
    recipe: Callable[..., str], data: list[str], target: Path, tmp_path: Path
) -> None:
    model = load_model(str(target))  # float32, as attribute_weights loads it
    mask = WeightMask(random_mask(model, 0.2, seed=0), 0.2, "random", fingerprint(model))
    mask.save(tmp_path / "mask.safetensors")
    words = [*TRAIN, *data, "--model_name_or_path", target, "--mask", tmp_path / "mask.safetensors"]
    printed = recipe("unlearn", *words, "--dtype", "bfloat16", "--output_dir", tmp_path / "run")
    assert "\n0 of the " in printed
    before, after = CheckpointWeights(target), CheckpointWeights(tmp_path / "run" / "model")
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert count_moved_outside(before, after, mask) == 0
    assert any(not torch.equal(before[name], after[name]) for name in mask)


def test_what_does_not_go_together_is_refused(
    refused: Callable[..., str], data: list[str], target: Path, adapter: Path, tmp_path: Path
) -> None:
    def stops(model: Path, *words: Any) -> str:
        out = tmp_path / "out"
        return refused(
            "unlearn", *TRAIN, *data, "--model_name_or_path", model, "--output_dir", out, *words, output_dir=out
        )

    assert "needs a base that is saved somewhere" in stops(adapter, "--use_peft", "--merge_adapter", "false")
    assert "goes with use_peft" in stops(target, "--merge_adapter", "false")
    assert "which" in stops(target, "--continue_adapter") and "is not" in stops(target, "--continue_adapter")
    assert "give one" in stops(adapter, "--continue_adapter", "--use_peft")
    assert "loses small updates" in stops(target, "--dtype", "bfloat16")
    assert "'float32' or 'bfloat16'" in stops(target, "--dtype", "float16")
    other = tmp_path / "another"
    other.mkdir()
    for path in adapter.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "fictional-base"}))
    assert "does not fit" in stops(other)
