"""A fresh adapter, which leaves the model as it is until it is trained, and as it was when it is switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor

from dareu.models.forward import evaluation_mode

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


def with_fresh_adapter(model: PreTrainedModel, peft_config: PeftConfig, seed: int) -> PeftModel:
    """The model with an adapter.

    Args:
        model: It is changed in place, and asked about a few tokens before and after.
        peft_config: Of the adapter.
        seed: Of its weights.

    Raises:
        ValueError: The adapter would not leave the model as it is.
    """
    init = getattr(peft_config, "init_lora_weights", True)
    if init not in (True, "gaussian"):
        raise ValueError(
            f"init_lora_weights is {init!r}, with which an adapter changes the model before it is trained: give "
            "True or 'gaussian'."
        )
    if getattr(peft_config, "bias", "none") != "none":
        raise ValueError(
            "bias trains the base's own biases, so that switching the adapter off no longer gives the "
            "original model: leave it at 'none'."
        )
    before = _logits(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, peft_config)
    with_it = _logits(adapted)
    with adapted.disable_adapter():
        without_it = _logits(adapted)
    if not (_alike(before, with_it) and _alike(before, without_it)):
        kind = getattr(peft_config.peft_type, "value", peft_config.peft_type)
        raise ValueError(
            f"An adapter of this kind ({kind}) changes the model before it is trained, or leaves another one where it "
            "is switched off, so that nothing gives the original model any more: use LoRA without layer_replication."
        )
    return adapted


def _logits(model: Any) -> Tensor | None:
    """Of a few tokens, (1, t, V); None where the weights are in pieces, as under ZeRO-3."""
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        return None
    number = min(8, model.config.get_text_config().vocab_size)
    with evaluation_mode(model), torch.no_grad():
        logits: Tensor = model(input_ids=torch.arange(number, device=next(model.parameters()).device)[None]).logits
    return logits


def _alike(before: Tensor | None, after: Tensor | None) -> bool:
    """Whether logits differ by rounding at most."""
    if before is None or after is None:
        return True
    rounding = 1e-3 if before.dtype == torch.float32 else 3e-2
    return before.shape == after.shape and bool((after - before).abs().max() <= rounding * before.abs().max())
