"""Targets with adapters, fresh or their own, and targets in bfloat16."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import FourierFTConfig, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.methods.npo import npo
from dareu.trainers import DareUConfig, DareUTrainer, UnlearnConfig, UnlearnTrainer
from dareu.trainers.original import original_policy
from dareu.weights import fingerprint

LORA = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])


def trained_adapter(model: LlamaForCausalLM) -> PeftModel:
    """A target that is a model with an adapter that has learnt something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = get_peft_model(model, LoraConfig(**LORA))
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert isinstance(made, PeftModel)
    return made.eval()


def make_mask(model: nn.Module) -> WeightMask:
    return WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model))


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def letters(completions: list[str], **_: Any) -> list[float]:
    return [-float(text.count("e")) for text in completions]


@pytest.fixture
def train(
    tokenizer: PreTrainedTokenizerFast,
    dareu_config: Callable[..., DareUConfig],
    unlearn_config: Callable[..., UnlearnConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Callable[..., Any]:
    """`train(method, model, **keywords of the trainer, options={}, resume=None)`: a trainer that has trained."""

    def run(
        method: str, model: Any, *, options: dict[str, Any] | None = None, resume: str | None = None, **keywords: Any
    ) -> Any:
        given = {"retain_dataset": retain_rows, "processing_class": tokenizer} | keywords
        if method == "dareu":
            trainer: Any = DareUTrainer(model, letters, dareu_config(**(options or {})), forget_rows, **given)
        else:
            trainer = UnlearnTrainer(model, npo, unlearn_config(**(options or {})), forget_rows, **given)
        trainer.remembered = trainer._retain.original  # which it lets go once all was asked
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


def starts_at_no_distance(trainer: Any) -> None:
    logged = trainer.state.log_history[0]
    assert abs(logged["retain_kl"]) < 1e-6
    if "kl" in logged:
        assert abs(logged["kl"]) < 1e-5
    else:
        assert logged["forget_loss"] == pytest.approx(20 * torch.tensor(2.0).log().item(), rel=1e-5)


@pytest.mark.parametrize("method", ["dareu", "npo"])
@pytest.mark.parametrize("target", ["fresh", "own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_trained_from_where_the_target_is(
    method: str,
    target: str,
    dtype: torch.dtype,
    train: Callable[..., Any],
    tiny_llama: Callable[..., LlamaForCausalLM],
) -> None:
    model: Any = tiny_llama(dtype=dtype).to(dtype)
    keywords: dict[str, Any] = {"peft_config": LoraConfig(**LORA)}
    if target == "own":
        model, keywords = trained_adapter(model), {}
    before = model(IDS).logits
    trainer = train(method, model, **keywords)
    if dtype == torch.float32:  # rounding is not the same in batches of other shapes
        starts_at_no_distance(trainer)
    with trainer.remembered() as original:
        assert torch.equal(original(IDS).logits, before)
    assert (trainer.model.eval()(IDS).logits - before).abs().max() > 1e-3
    if target == "own":
        start = copies(trained_adapter(tiny_llama(dtype=dtype).to(dtype)))
        moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, start[name])}
        assert moved and all("lora_" in name for name in moved)
        assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}


def test_what_cannot_be_trained_is_refused(
    train: Callable[..., Any], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    for model, keywords, match in (
        (tiny_llama().requires_grad_(False), {}, "No weight of the model can be trained"),
        (trained_adapter(tiny_llama()), {"peft_config": LoraConfig(**LORA)}, "has an adapter already"),
        (tiny_llama(), {"peft_config": LoraConfig(**LORA, init_lora_weights="pissa")}, "init_lora_weights is 'pissa'"),
        (trained_adapter(tiny_llama()), {"mask": make_mask(tiny_llama())}, "exclude each other"),
    ):
        with pytest.raises(ValueError, match=match) as error:
            train("npo", model, **keywords)
        assert "\n" not in str(error.value)


def test_training_all_weights_in_bfloat16_warns(
    train: Callable[..., Any], tiny_llama: Callable[..., LlamaForCausalLM], caplog: pytest.LogCaptureFixture
) -> None:
    train("npo", tiny_llama().to(torch.bfloat16), options={"max_steps": 1})
    assert "small updates round away" in caplog.text
    caplog.clear()
    train("npo", tiny_llama(), options={"max_steps": 1})
    assert "round away" not in caplog.text


@pytest.mark.parametrize("method", ["dareu", "npo"])
def test_masked_bfloat16_training_resumes_with_the_same_bits(
    method: str, train: Callable[..., Any], tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    target = tiny_llama().to(torch.bfloat16)
    mask = make_mask(copy.deepcopy(target).float())  # as attribute_weights makes it
    options = {"learning_rate": 1e-4, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = train(method, copy.deepcopy(target), mask=mask, options=options).model
    assert count_moved_outside(target, whole, mask) == 0
    moved = sum(int((old != new).sum()) for old, new in zip(target.parameters(), whole.parameters(), strict=True))
    assert moved > 0.02 * mask.count
    resumed = train(
        method,
        copy.deepcopy(target),
        mask=mask,
        options=options,
        resume=str(tmp_path / "run" / "checkpoint-2"),
    ).model
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_the_original_entries_are_swapped_in_bfloat16(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama().to(torch.bfloat16)
    mask, before = make_mask(model), model(IDS).logits
    remembered = original_policy(model, mask, fresh_adapter=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.05 * mask[name]
    trained = copies(model)
    with remembered() as original:
        assert torch.equal(original(IDS).logits, before)
    assert all(torch.equal(parameter, trained[name]) for name, parameter in model.named_parameters())
    assert count_moved_outside(trained, model, {name: torch.zeros_like(m) for name, m in mask.items()}) == 0


@pytest.mark.parametrize(
    "config",
    [
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        LoraConfig(**LORA, layer_replication=[(0, 2), (1, 2)]),
        FourierFTConfig(task_type="CAUSAL_LM", n_frequency=20, target_modules=["q_proj"], scaling=150.0),
    ],
    ids=lambda config: str(config.peft_type.value) + ("-replicated" if getattr(config, "layer_replication", 0) else ""),
)
def test_an_adapter_that_does_not_leave_the_model_as_it_is_is_refused(
    config: Any, train: Callable[..., Any], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    with pytest.raises(ValueError, match="changes the model before it is trained"):
        train("npo", tiny_llama(), peft_config=config)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}])
def test_kinds_of_lora_that_begin_as_the_model_are_trained(
    options: dict[str, Any], train: Callable[..., Any], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    trainer = train("npo", tiny_llama(), peft_config=LoraConfig(**LORA, **options), options={"max_steps": 1})
    assert trainer.state.global_step == 1
