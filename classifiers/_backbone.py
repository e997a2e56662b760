"""The causal language model under an `LLMClassifier`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

PAPER_LORA: Mapping[str, Any] = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "target_modules": "all-linear",
}


def load_backbone(
    model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The float32 transformer without its language-model head, and its tokenizer; a loaded model is copied.

    Raises:
        ValueError: the model cannot be loaded, has no tokenizer, has an adapter, is quantised, or looks ahead.
    """
    if isinstance(model, torch.nn.Module):
        if tokenizer is None:
            raise ValueError("LLMClassifier got a loaded model without its tokenizer: pass `tokenizer` too.")
        whole: Any = model
    else:
        try:
            whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        except Exception as error:  # libraries, configs and files fail in many ways
            reason = " ".join(str(error).split())
            raise ValueError(f"LLMClassifier cannot load a causal language model from {model}: {reason}") from error
    if hasattr(whole, "peft_config"):  # the classifier's own would take its place
        raise ValueError(
            "LLMClassifier takes no model with an adapter: pass the merged one and its tokenizer, as "
            "dareu.models.load_model and load_tokenizer give them."
        )
    if getattr(whole, "is_quantized", False):
        raise ValueError("LLMClassifier takes no quantised model: give the unquantised one.")
    backbone = whole.base_model
    if isinstance(model, torch.nn.Module):
        backbone = copy.deepcopy(backbone).float()
    assert isinstance(backbone, PreTrainedModel)
    if not tokenizer.is_fast:
        raise ValueError("LLMClassifier needs a fast tokenizer (with character offsets): load one with use_fast=True.")
    backbone.requires_grad_(True).train(False)
    _check_causal(backbone)
    return backbone, tokenizer


def add_lora(backbone: PreTrainedModel, settings: Mapping[str, Any] | None) -> torch.nn.Module:
    """The backbone with trainable LoRA adapters, of the paper's size unless `settings` say otherwise."""
    from peft import LoraConfig, get_peft_model

    try:
        return get_peft_model(backbone, LoraConfig(**{**PAPER_LORA, **(settings or {})}))
    except ValueError as error:  # such as experts in one tensor, which take no dropout
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"LLMClassifier cannot put LoRA on {type(backbone).__name__}: {reason}. Set lora_kwargs otherwise, such as "
            "{'lora_dropout': 0}, or lora=False."
        ) from error


@torch.no_grad()
def width_of(backbone: PreTrainedModel) -> int:
    """The size of its last hidden states, which is not that of its layers in every model."""
    ids = torch.zeros((1, 1), dtype=torch.long, device=backbone.device)
    return int(backbone(input_ids=ids).last_hidden_state.shape[-1])


@torch.no_grad()
def _check_causal(backbone: PreTrainedModel) -> None:
    # One forward pass may answer for all prefixes only where no token sees what comes after it.
    ids = torch.arange(4, device=backbone.device)[None] % backbone.config.get_text_config().vocab_size
    whole = backbone(input_ids=ids).last_hidden_state
    prefix = backbone(input_ids=ids[:, :2]).last_hidden_state
    # Relative, for the states of a pretrained model may be in the thousands, and rounding with them.
    if (whole[:, :2] - prefix).norm() > 1e-3 * prefix.norm():
        raise ValueError(
            f"LLMClassifier needs a causal language model, but {type(backbone).__name__} looks ahead: "
            "fine-tune an encoder as a sequence classifier and use SequenceClassifier."
        )
