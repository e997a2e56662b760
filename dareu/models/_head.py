"""The head over the vocabulary, taken out of a forward for something that needs less memory than its logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from dareu.models.tiles import Predictions

#: Goes through the model behind the results: what comes out shows what the model does to the output of its head.
_PROBE = (1.0, -3.0, 0.25, 400.0)


def unwrapped(model: nn.Module) -> nn.Module:
    """The language model itself, without DDP, DeepSpeed, `torch.compile` and PEFT around it."""
    return _layers(model)[-1]


def _layers(model: nn.Module) -> list[nn.Module]:
    """A model, and what it wraps, down to the language model itself."""
    layers = [model]
    for wrapper in ("module", "_orig_mod"):
        if isinstance(inner := getattr(layers[-1], wrapper, None), nn.Module):
            layers.append(inner)
    if isinstance(layers[-1], PeftModel):
        layers.append(layers[-1].get_base_model())
    return layers


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, or anything around it, goes through `torch.compile`."""
    return any(hasattr(layer, "_orig_mod") or layer._compiled_call_impl is not None for layer in _layers(model))


def in_place_of_head(model: nn.Module, inputs: Mapping[str, Any], compute: Callable[[Predictions], Tensor]) -> Tensor:
    """Runs a model, and computes something of its predictions where its head would make logits of them.

    Within the forward the head's weight is whole and its gradient is awaited, however the model is wrapped: what is
    computed leaves the model in place of the logits. Where that could be anything but exact, the logits are made.

    Args:
        model: A causal language model.
        inputs: Of its forward.
        compute: Takes (B, K, H) hidden states with the head, or else (B, K, V) logits; it may be called twice.

    Returns:
        What `compute` gave.
    """
    found = _plain_head(model)
    if found is None:
        return compute(Predictions(model(**inputs).logits))
    head, others = found
    made: list[tuple[Tensor, torch.Size]] = []
    calls = 0

    def forward(hidden: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if isinstance(head.weight, DTensor):  # a part of it, as under tensor parallelism
            return nn.Linear.forward(head, hidden)
        result = compute(Predictions(hidden, head.weight, head.bias, *others))
        made.append((torch.cat([result.reshape(-1), result.new_tensor(_PROBE)])[None, None], result.shape))
        return made[-1][0]

    vars(head)["forward"] = forward
    try:
        output = model(**inputs).logits
    finally:
        del vars(head)["forward"]
    if not made:
        return compute(Predictions(output))
    value, shape = made[0]
    if calls > 1 or not _is_all(value, output, Predictions(value, None, None, *others)):
        return compute(Predictions(model(**inputs).logits))
    if output.requires_grad:
        value = _Beside.apply(value, output)  # type: ignore[no-untyped-call]
    return value[0, 0, : -len(_PROBE)].view(shape)


class _Beside(torch.autograd.Function):
    """A value in full precision, for whose backward all is ready that awaits the gradient of the model's output."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(output.new_zeros(()).expand_as(output))
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], ctx.saved_tensors[0]


def _plain_head(model: nn.Module) -> tuple[nn.Linear, tuple[float, float | None]] | None:
    """The head where it is nothing but a linear map, and the scale and cap of what it gives by the model's config."""
    if is_compiled(model):
        return None
    inner: Any = unwrapped(model)
    if not hasattr(inner, "get_output_embeddings"):
        return None
    head: Any = inner.get_output_embeddings()
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward or "forward" in vars(head):
        return None
    if hasattr(head.weight, "ds_id"):  # ZeRO-3's
        return None
    if (head._forward_hooks or head._forward_pre_hooks) and not isinstance(head, FSDPModule):
        return None  # somebody's, who awaits logits; FSDP's own gather and free the weight
    config = inner.config.get_text_config()
    if (getattr(config, "unpadded_vocab_size", None) or head.out_features) < head.out_features:
        return None  # the model cuts rows off, which a probe narrower than they are does not see
    factors = [getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
    scale = math.prod(factor for factor in factors if isinstance(factor, int | float))
    return head, (
        scale / (getattr(config, "logits_scaling", None) or 1),
        getattr(config, "final_logit_softcapping", None),
    )


def _is_all(value: Tensor, output: Tensor, head: Predictions) -> bool:
    """Whether the model did nothing to the output of its head but what is known."""
    expected = head.transformed(value.detach().clone()).to(output.dtype)
    tolerance = 1e-5 if output.dtype in (torch.float32, torch.float64) else 1e-2
    return output.shape == expected.shape and bool(
        torch.allclose(output.detach(), expected, rtol=tolerance, atol=0, equal_nan=True)
    )
