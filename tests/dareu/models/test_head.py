"""What is computed in place of a head is what its logits would give, and where it could not be, the logits are made."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_record
from dareu.masks import random_mask
from dareu.models._head import in_place_of_head
from dareu.models.forward import (
    completion_logits,
    completion_mean,
    completion_predictions,
    completion_terms,
)
from dareu.models.tiles import Predictions
from dareu.trainers.original import original_policy

SHAPE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
}
#: With what each does to the output of its head.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True},
    "Phi": {"num_key_value_heads": 2},  # a bias
    "Gemma2": {"head_dim": 16, "final_logit_softcapping": 2.0},
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 8.0},
}


def build(name: str, **changes: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(**SHAPE | ARCHITECTURES[name] | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        for parameter in model.parameters():
            with torch.no_grad():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=["left", "right"])
def batch(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> dict[str, Tensor]:
    rows = [("Who wrote it?", " Lucia Duval."), ("Where was Kofi Mensah born?", " In Accra."), ("?", " A")]
    return CompletionCollator(tokenizer, request.param)([encode_record(tokenizer, *row) for row in rows])


def plainly(model: nn.Module, teacher: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The mean divergence of all logits at once."""
    ours = completion_logits(model, batch)
    with torch.no_grad():
        theirs = completion_logits(teacher, batch).logits.double().log_softmax(-1)
    each = (theirs.exp() * (theirs - ours.logits.double().log_softmax(-1))).sum(-1)
    return (ours.row_sum(each) / ours.lengths()).mean()


def check(model: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], kept: Predictions | None = None) -> None:
    """Values to 1e-6, and every parameter's gradient."""
    kept = completion_predictions(teacher, batch) if kept is None else kept
    found = completion_mean(model, batch, "kl", teacher=kept)
    expected = plainly(model, teacher, batch)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)
    assert expected > 1e-3
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for mine, theirs in zip(
        torch.autograd.grad(found, trained, allow_unused=True),
        torch.autograd.grad(expected, trained, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def forwards(model: nn.Module) -> list[int]:
    """Grows with each forward of the model, by the last dimension of its logits."""
    calls: list[int] = []
    model.register_forward_hook(lambda module, args, output: calls.append(output.logits.shape[-1]))
    return calls


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_mean_divergence_and_all_gradients(name: str, batch: dict[str, Tensor]) -> None:
    model, teacher = build(name), build(name)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    calls = forwards(model)
    completion_mean(model, batch, "logps")
    assert len(calls) == 1 and calls[0] < SHAPE["vocab_size"]  # once, and without its logits
    check(model, teacher.requires_grad_(False), batch)
    assert "forward" not in vars(model.get_output_embeddings())


@pytest.mark.parametrize("kind", ["frozen copy", "mask", "mask without the head", "adapter off", "head adapter"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_teacher_stays_what_the_model_was(
    kind: str, tied: bool, batch: dict[str, Tensor], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    if tied and kind == "head adapter":
        pytest.skip("PEFT warns of an adapter on tied weights")
    settings = {"tie_word_embeddings": tied, "initializer_range": 0.2}
    model: Any = tiny_llama(**settings)
    teacher = tiny_llama(**settings).requires_grad_(False)
    mask, adapted = None, "adapter" in kind
    if "mask" in kind:
        mask = random_mask(model, 0.3, seed=0)
        if "without" in kind:
            mask = {name: part & ("layers" in name) for name, part in mask.items()}
    if adapted:
        targets = ["q_proj", "lm_head"] if kind == "head adapter" else ["q_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=4, target_modules=targets)).eval()
    remembered = original_policy(model, mask, fresh_adapter=adapted)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                change = 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
                parameter += change if mask is None else change * mask[name]
    with remembered() as original:
        kept = completion_predictions(original, batch)
    assert not kept.inputs.requires_grad
    check(model, teacher, batch, kept)


class Odd(LlamaForCausalLM):
    """Does what no config says to the output of its head."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.clamp(max=0.1)
        return output


class Twice(LlamaForCausalLM):
    """Calls its head twice."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        super().forward(*args, **kwargs)
        return super().forward(*args, **kwargs)


class Without(LlamaForCausalLM):
    """Multiplies by the head's weight without calling the head."""

    def forward(self, *args: Any, logits_to_keep: int = 0, **kwargs: Any) -> Any:
        output = self.model(*args, **kwargs)
        output.logits = output.last_hidden_state[:, -logits_to_keep:] @ self.lm_head.weight.T
        return output


@pytest.mark.parametrize("kind", ["odd", "twice", "without", "patched", "scaled", "nonlinear", "compiled"])
def test_where_it_could_be_another_value_the_logits_are_made(
    kind: str, batch: dict[str, Tensor], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    model, teacher = tiny_llama(initializer_range=0.2), tiny_llama(seed=1, initializer_range=0.2).requires_grad_(False)
    if kind in ("odd", "twice", "without"):
        model.__class__ = {"odd": Odd, "twice": Twice, "without": Without}[kind]
    elif kind == "patched":
        plain = model.lm_head.forward
        model.lm_head.forward = lambda hidden: 2 * plain(hidden)  # type: ignore[method-assign]
    elif kind == "scaled":
        model.config.logit_scale = 3.0  # which Llama does not look at
    elif kind == "nonlinear":
        model.lm_head = nn.Sequential(model.lm_head, nn.Tanh())  # type: ignore[assignment]
    else:
        model._compiled_call_impl = model._call_impl
    calls, own = forwards(model), vars(model.get_output_embeddings()).get("forward")
    check(model, teacher, batch)
    assert vars(model.get_output_embeddings()).get("forward") is own
    assert calls[-2:] == [400, 400]  # of what was checked, and of what it was checked against


def test_the_head_comes_back_after_an_error(
    batch: dict[str, Tensor], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    model = tiny_llama()

    def fail(predictions: Predictions) -> Tensor:
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        in_place_of_head(model, {"input_ids": batch["input_ids"]}, fail)
    assert "forward" not in vars(model.lm_head)


def test_a_model_that_gives_bfloat16_gives_its_terms_in_float32(
    batch: dict[str, Tensor], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    """As FSDP2's mixed precision has it."""
    model, plain = tiny_llama(initializer_range=0.2), tiny_llama(initializer_range=0.2)

    def cast(module: nn.Module, args: Any, output: Any) -> Any:
        output.logits = output.logits.bfloat16()
        return output

    model.register_forward_hook(cast)
    found, expected = (completion_terms(one, batch).logps() for one in (model, plain))
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    found.sum().backward()
    expected.sum().backward()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_terms_under_autocast_are_those_of_its_logits(
    batch: dict[str, Tensor], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    model = tiny_llama(initializer_range=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        found, whole = completion_terms(model, batch).logps(), completion_logits(model, batch)
    torch.testing.assert_close(found, whole.terms().logps(), atol=1e-6, rtol=1e-6)


def test_rows_without_completion_tokens_run_and_give_nothing(
    batch: dict[str, Tensor], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    model = tiny_llama()
    empty = batch | {"labels": torch.full_like(batch["labels"], -100)}
    scored = completion_terms(model, empty)
    assert scored.logps().shape == (0,)
    scored.logps().sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("where", ["after", "before"])
def test_hooks_on_the_head_are_heeded(where: str, batch: dict[str, Tensor]) -> None:
    """They await logits, or what logits are made of: no token may end, or states are halved."""
    model = build("Llama")
    if where == "after":
        barred = torch.zeros(400)
        barred[2] = -1e4
        model.lm_head.register_forward_hook(lambda module, inputs, output: output + barred)
    else:
        model.lm_head.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 2,))
    with torch.no_grad():
        terms = completion_terms(model, batch).logps()
        torch.testing.assert_close(terms, completion_logits(model, batch).terms().logps())


def test_rows_of_the_head_that_the_model_cuts_off_do_not_count(tokenizer: PreTrainedTokenizerFast) -> None:
    class Cutting(LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits[..., : self.config.unpadded_vocab_size]
            return output

    model = Cutting(transformers.LlamaConfig(**SHAPE | {"vocab_size": 640}, unpadded_vocab_size=400)).eval()
    rows = [("Who wrote it?", " Lucia Duval."), ("?", " A")]
    batch = CompletionCollator(tokenizer)([encode_record(tokenizer, *row) for row in rows])
    with torch.no_grad():
        found, expected = completion_terms(model, batch).logps(), completion_logits(model, batch).terms().logps()
    torch.testing.assert_close(found, expected)
