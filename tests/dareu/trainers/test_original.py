from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaForCausalLM

from dareu.masks import random_mask
from dareu.trainers.original import original_policy

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])


def disturb(model: nn.Module, mask: dict[str, torch.Tensor] | None = None) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                change = torch.full_like(parameter, 0.05)
                parameter += change if mask is None else change * mask[name]


def adapted(model: LlamaForCausalLM) -> PeftModel:
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], lora_dropout=0.5))


@pytest.mark.parametrize("kind", ["full", "masked", "lora", "adapter"])
def test_the_original_stays_what_the_model_was(kind: str, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model: nn.Module = tiny_llama()
    mask = random_mask(model, 0.3, seed=0) if kind == "masked" else None
    if kind in ("lora", "adapter"):
        model = adapted(model)
    if kind == "adapter":  # an adapter that has learnt something is itself the target
        disturb(model)
    before = model(IDS).logits.detach().clone() if kind != "lora" else model.eval()(IDS).logits.detach().clone()
    if kind == "adapter":
        before = model.eval()(IDS).logits.detach().clone()
    remembered = original_policy(model, mask, fresh_adapter=kind == "lora")
    with remembered() as original:
        assert torch.equal(original(IDS).logits, before)  # KL 0 before the first update
    disturb(model, mask)
    model.train()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with remembered() as original:
        assert torch.equal(original(IDS).logits, before)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled() and model.training
    assert not torch.equal(model.eval()(IDS).logits, before)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name])


def test_swapping_before_the_forward_leaves_gradients_right(
    tiny_llama: Callable[..., LlamaForCausalLM],
) -> None:
    model, plain = tiny_llama(), tiny_llama()
    mask = random_mask(model, 0.3, seed=0)
    remembered = original_policy(model, mask, fresh_adapter=False)
    disturb(model, mask)
    disturb(plain, mask)
    with remembered() as original:
        original(IDS)
    model(IDS, labels=IDS).loss.backward()
    plain(IDS, labels=IDS).loss.backward()
    for left, right in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(left.grad, right.grad)


def test_the_original_entries_come_back_after_an_error(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama()
    mask = random_mask(model, 0.3, seed=0)
    remembered = original_policy(model, mask, fresh_adapter=False)
    disturb(model, mask)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(RuntimeError, match="on the way"), remembered():
        raise RuntimeError("on the way")
    assert all(torch.equal(left, right) for left, right in zip(model.parameters(), weights, strict=True))
