"""LoRA adapters: which base a saved one belongs to, putting it there, and merging it in."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def adapter_base(name_or_path: str) -> str | None:
    """The base model that an adapter folder, or the hub id of an adapter, names; None for what is no adapter.

    Raises:
        ValueError: The adapter names none.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        path = find_adapter_config_file(name_or_path)
    except OSError:  # neither a folder nor the name of a repository: whoever loads it says so
        return None
    if path is None:
        return None
    base = json.loads(Path(path).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ValueError(
            f"The adapter {name_or_path!r} does not say what it belongs to: write its base model's name as "
            "base_model_name_or_path into its adapter_config.json."
        )
    return str(base)


def attach_adapter(base: PreTrainedModel, name_or_path: str) -> PeftModel:
    """Puts a saved adapter on its base model, in place and without merging, ready to be trained on.

    Args:
        base: The model that the adapter was trained on.
        name_or_path: The adapter's folder or hub id; only safetensors are read. LoRA's weights are float32 whatever
            the base's dtype is.

    Raises:
        ValueError: There is no whole adapter, or it is another base's: not every weight of the one has its place in
            the other, in the same shape.
    """
    from peft import PeftConfig, PeftModelForCausalLM, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers.utils.hub import cached_file

    try:
        config = PeftConfig.from_pretrained(name_or_path)
        weights = load_file(str(cached_file(name_or_path, "adapter_model.safetensors")))
    except (OSError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"The adapter {name_or_path!r} is not whole: {_reason(error)}") from error
    if config.is_prompt_learning:
        raise ValueError(f"The adapter {name_or_path!r} is a learnt prompt, which cannot be merged: give a LoRA.")
    config.inference_mode = False
    try:
        model = PeftModelForCausalLM(base, config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.fill_(math.nan)  # what the file lacks stays so
        result: Any = set_peft_model_state_dict(model, weights)
        if result.unexpected_keys:
            raise ValueError(f"the base has no place for {result.unexpected_keys[0]}.")
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.isnan().any():
                raise ValueError(f"the file lacks {name}, or holds NaN there.")
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"The adapter {name_or_path!r} does not fit {base.name_or_path!r}, the base that its adapter_config.json "
            f"names: {_reason(error)}"
        ) from error
    return model


def check_mergeable(model: PeftModel) -> None:
    """Merges a copy of every adapted layer, one at a time.

    Raises:
        ValueError: PEFT cannot merge one, as a LoRA with a bias into a layer without.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            try:  # each kind of layer refuses in its own way
                copy.deepcopy(layer).merge()
            except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(
                    f"The adapter cannot be merged into {name.removeprefix('base_model.model.')} "
                    f"({_reason(error).rstrip('.')}): train and save it as an adapter, with merge_adapter=False."
                ) from error


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """Merges an adapter into the weights of its base, in place, and drops it; all weights are trainable then.

    Where embeddings and head are tied and the adapter changes one of them, they are untied: merged into the one
    weight, the change would reach both.

    Raises:
        ValueError: See `check_mergeable`; the model is as it was.
    """
    check_mergeable(model)
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = model.get_base_model()
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    tied = embeddings is not None and head is not None and embeddings.weight is head.weight
    if tied and (isinstance(embeddings, BaseTunerLayer) or isinstance(head, BaseTunerLayer)):
        layer: Any = head.get_base_layer() if hasattr(head, "get_base_layer") else head
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
        base.config.get_text_config().tie_word_embeddings = False
        base.config.tie_word_embeddings = False
    unload: Any = model.merge_and_unload
    merged: PreTrainedModel = unload()
    merged.requires_grad_(True)  # PEFT froze them
    return merged


def _reason(error: Exception) -> str:
    """What was wrong, in one line: torch and PEFT put a heading above it, or give a key alone."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, KeyError):
        return f"the file lacks {lines[0]}."
    return lines[1].strip() if isinstance(error, RuntimeError) and len(lines) > 1 else lines[0]
