"""Task vectors: what was learnt is subtracted once, from what was trained alone, and what is refused."""

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.methods.task_vector import TaskVectorConfig, TaskVectorTrainer, task_vector
from dareu.models import load_model
from dareu.models.adapters import merge_adapter
from dareu.trainers.checkpoints import last_checkpoint
from dareu.weights import fingerprint

Build = Callable[..., TaskVectorTrainer]
LORA = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


@pytest.fixture
def build(tokenizer: PreTrainedTokenizerFast, unlearn_config: Callable[..., Any], forget_rows: Dataset) -> Build:
    def make(model: Any, *, mask: Any = None, lora: Any = None, **options: Any) -> TaskVectorTrainer:
        saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "learning_rate": 1e-3}
        return TaskVectorTrainer(
            model,
            task_vector,
            unlearn_config(TaskVectorConfig, **(saving | options)),
            forget_rows,
            mask=mask,
            processing_class=tokenizer,
            peft_config=lora,
        )

    return make


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def make_mask(model: nn.Module) -> WeightMask:
    return WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_the_equations(
    masked: bool, dtype: torch.dtype, build: Build, tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    model: Any = tiny_llama().to(dtype)
    with torch.no_grad():
        # Of a token that no row has; frozen, it shall keep its bits, though inf - inf is no number
        model.model.embed_tokens.weight[3, :2] = torch.tensor([-0.0, math.inf if masked else 0.5])
    mask = make_mask(model) if masked else None
    if mask is not None:
        mask["model.embed_tokens.weight"][3] = False
    before = copies(model)
    trainer = build(model, mask=mask, alpha=2.5)
    trainer.train()
    tuned = copies(load_model(str(tmp_path / "run" / "checkpoint-4"), dtype=dtype))
    for name, parameter in model.named_parameters():
        start, end = before[name].double(), tuned[name].double()
        expected = torch.where(start == end, start, start - 2.5 * (end - start))
        tolerance = 1e-6 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(parameter.double(), expected, atol=1e-7, rtol=tolerance, msg=name)
    if mask is not None:
        assert count_moved_outside(before, model, mask) == 0
    learnt = max(float((tuned[name] - before[name]).abs().nan_to_num().max()) for name in before)
    assert learnt > 1e-3


def test_what_is_logged_is_learnt(build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    trainer = build(tiny_llama(), max_steps=6)
    trainer.train()
    losses = [line["forget_loss"] for line in trainer.state.log_history[:-1]]
    assert losses == sorted(losses, reverse=True) and trainer.original is None


def test_a_fresh_adapter_is_negated(build: Build, tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path) -> None:
    target = copies(tiny_llama())
    trainer: Any = build(tiny_llama(), lora=LoraConfig(**LORA), alpha=1.5, learning_rate=1e-2)
    trainer.train()
    tuned: Any = PeftModel.from_pretrained(tiny_llama(), str(tmp_path / "run" / "checkpoint-4"))
    learnt, found = copies(merge_adapter(tuned)), copies(merge_adapter(trainer.model))
    for name, start in target.items():
        torch.testing.assert_close(found[name], start - 1.5 * (learnt[name] - start), atol=1e-6, rtol=0, msg=name)
    assert max(float((learnt[name] - start).abs().max()) for name, start in target.items()) > 1e-3


def test_an_adapter_that_is_the_target_is_mirrored_in_its_own_tensors(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = get_peft_model(tiny_llama(), LoraConfig(**LORA))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    before = copies(model)
    tuned = copy.deepcopy(model)
    build(model, alpha=2.0).train()
    tuned.load_adapter(str(tmp_path / "run" / "checkpoint-4"), "default")
    learnt = copies(tuned)
    for name, parameter in model.named_parameters():
        expected = before[name] - 2.0 * (learnt[name] - before[name])
        torch.testing.assert_close(parameter, expected, atol=1e-7, rtol=0, msg=name)
        assert "lora_" in name or torch.equal(parameter, before[name])
    assert any(not torch.equal(learnt[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", ["dense", "masked", "lora"])
@pytest.mark.parametrize("step", [2, 4])
def test_a_training_that_goes_on_subtracts_once(
    kind: str, step: int, build: Build, tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    """From its last update, too: the training was killed before anything was subtracted."""
    made = []
    for resume in (None, str(tmp_path / "run" / f"checkpoint-{step}")):
        model = tiny_llama()
        mask = make_mask(model) if kind == "masked" else None
        trainer = build(model, mask=mask, lora=LoraConfig(**LORA) if kind == "lora" else None, alpha=2.0)
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == 4
        made.append(trainer.model)
    for one, other in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert os.path.basename(str(last_checkpoint(tmp_path / "run"))) == "checkpoint-4"


def test_it_forgets_more_than_it_loses(
    build: Build,
    memorised: Callable[..., LlamaForCausalLM],
    answers_nll: Callable[..., tuple[float, float]],
) -> None:
    model = memorised(num_hidden_layers=5)
    before = answers_nll(model)
    build(model).train()
    forgotten, lost = (end - start for end, start in zip(answers_nll(model), before, strict=True))
    assert forgotten > 0.1 and lost < 0.3 * forgotten


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": 0.0}, "alpha is 0.0: give a number > 0"),
        ({"retain_coef": 1.0}, "retain_loss and retain_coef are of the retain term that other methods share"),
        ({"retain_batch_size": 4}, "looks at no retained rows: leave retain_batch_size out"),
        ({"validation_steps": 5}, "no judge can tell when to stop: leave validation_steps"),
        ({"stop_forget_attribution": 0.1}, "no judge can tell when to stop: leave validation_steps"),
        ({"stop_fluency_nll": 2.0}, "no judge can tell when to stop: leave validation_steps"),
        ({"lora": LoraConfig(**LORA, use_dora=True)}, "lora_magnitude_vector.* is neither: leave modules_to_save"),
        ({"lora": LoraConfig(**LORA, modules_to_save=["lm_head"])}, "is neither: leave modules_to_save"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    options: dict[str, Any], match: str, build: Build, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    with pytest.raises(ValueError, match=match) as error:
        build(tiny_llama(), **options)
    assert "\n" not in str(error.value)


def test_the_best_of_its_states_is_none_of_what_it_subtracts(unlearn_config: Callable[..., Any]) -> None:
    """By a metric of forgetting it would be the one that has learnt least."""
    every = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    config = unlearn_config(TaskVectorConfig, load_best_model_at_end=True, metric_for_best_model="rouge", **every)
    with pytest.raises(ValueError, match="subtracts what its last update ends with: leave load_best_model_at_end out"):
        config.check()
