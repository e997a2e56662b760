"""Prompts in common are computed once, and nothing else changes."""

from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from dareu.models.forward import completion_logits, sampled_terms
from dareu.models.prompts import shared_prompts

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
SHARING: dict[str, dict[str, Any]] = {
    "Llama": {"num_key_value_heads": 1},
    "Qwen3": {"num_key_value_heads": 1, "head_dim": 16},
    "GPTNeoX": {},
    "GPT2": {},
    "Phi": {"num_key_value_heads": 2},
}
#: With layers that forget, positions turned by a row's length, or none that could be told.
OTHERS: dict[str, dict[str, Any]] = {
    "Mistral": {"num_key_value_heads": 1, "sliding_window": None, "rope_parameters": DYNAMIC},
    "Gemma2": {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 4},
    "Bloom": {},
}
PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14]]
COMPLETIONS = [[20, 21, 22, 2], [23, 2], [24, 25, 26, 27, 2], [2], [28, 29], [30, 31, 2], [32, 2], [33, 34, 35]]
OF_PROMPT = [0, 0, 1, 0, 1, 1, 2, 2]


def build(name: str) -> Any:
    config = getattr(transformers, f"{name}Config")(**SHAPE | (SHARING | OTHERS)[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


def rollout(order: list[int]) -> tuple[Tensor, Tensor, int]:
    """Ids, mask, and tokens of the longest completion, of rows in some order."""
    width = max(map(len, PROMPTS))
    number = max(len(COMPLETIONS[row]) for row in order)
    ids, mask = [], []
    for row in order:
        prompt, completion = PROMPTS[OF_PROMPT[row]], COMPLETIONS[row]
        left, right = width - len(prompt), number - len(completion)
        ids.append([0] * left + prompt + completion + [0] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
    return torch.tensor(ids), torch.tensor(mask), number


def counted(model: nn.Module) -> list[int]:
    """Gets the tokens of each forward of the decoder's embedding."""
    tokens: list[int] = []
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    embedding.register_forward_hook(lambda module, inputs, output: tokens.append(inputs[0].numel()))
    return tokens


def plainly(model: nn.Module, ids: Tensor, mask: Tensor, number: int) -> Tensor:
    """Log-probabilities and entropies (2, B, T) of whole logits."""
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-number] = -100
    made = completion_logits(model, {"input_ids": ids, "attention_mask": mask, "labels": labels})
    logps = made.logits.double().log_softmax(-1)
    terms = torch.stack([logps.gather(-1, made.tokens[:, None])[:, 0], -(logps.exp() * logps).sum(-1)])
    found = torch.zeros(2, *ids.shape, dtype=torch.float64)
    found[:, labels != -100] = terms
    return found[..., -number:]


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("order", [list(range(8)), [6, 2, 0, 4, 7, 1, 5, 3]], ids=["grouped", "shuffled"])
def test_terms_and_gradients_are_those_of_whole_rows(name: str, order: list[int]) -> None:
    model = build(name)
    ids, mask, number = rollout(order)
    tokens = counted(model)
    found = sampled_terms(model, ids, mask, number, ("logps", "entropy"), batch_size=8)
    width = ids.shape[1] - number
    assert sum(tokens) == 3 * (width - 1) + 8 * (number + 1)
    weights = torch.randn(2, *found["logps"].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for terms in (torch.stack([found["logps"], found["entropy"]]), plainly(model, ids, mask, number)):
        model.zero_grad()
        (terms * weights).sum().backward()
        gradients.append({each: parameter.grad.clone() for each, parameter in model.named_parameters()})
        torch.testing.assert_close(terms, plainly(model, ids, mask, number), rtol=1e-6, atol=1e-6)
    for each, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][each], gradient, rtol=1e-5, atol=1e-6, msg=each)


@pytest.mark.parametrize("name", OTHERS)
def test_models_with_another_past_compute_whole_rows(name: str) -> None:
    model = build(name)
    ids, mask, number = rollout(list(range(8)))
    tokens = counted(model)
    sampled_terms(model, ids, mask, number, batch_size=8)
    assert tokens == [ids.numel()]


def test_batches_change_nothing() -> None:
    model = build("Llama")
    ids, mask, number = rollout([6, 2, 0, 4, 7, 1, 5, 3])
    whole, parts = (sampled_terms(model, ids, mask, number, batch_size=size)["logps"] for size in (8, 3))
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)


def test_an_adapter_and_wrappers_share_as_well() -> None:
    model = get_peft_model(build("Llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    ids, mask, number = rollout(list(range(8)))
    expected = plainly(model, ids, mask, number)[0]
    tokens = counted(model)
    wrapped = nn.Module()
    wrapped.module = model
    wrapped.forward = model.forward
    found = sampled_terms(wrapped, ids, mask, number, batch_size=8)["logps"]
    assert sum(tokens) < ids.numel()
    torch.testing.assert_close(found, expected.to(found), rtol=1e-6, atol=1e-6)


def test_nothing_is_shared_where_it_could_be_wrong_or_would_not_pay() -> None:
    model = build("Llama")
    ids, mask, number = rollout([0, 2, 6])
    tokens = counted(model)
    sampled_terms(model, ids, mask, number, batch_size=8)
    assert tokens == [ids.numel()], "no two rows have a prompt in common"
    model.gradient_checkpointing_enable()
    ids, mask, number = rollout(list(range(8)))
    sampled_terms(model.train(), ids, mask, number, batch_size=8)
    assert tokens[1:] == [ids.numel()], "activations are made again, which a cache does not survive"


def test_a_model_is_left_as_it_was_found() -> None:
    model = build("Llama")
    before = dict(vars(model.model))
    with pytest.raises(RuntimeError, match="on purpose"), shared_prompts(model, 2):
        raise RuntimeError("on purpose")
    assert vars(model.model) == before
