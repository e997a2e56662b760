"""LoRA adapters: which base a saved one belongs to, putting it there, and merging it in."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dareu.models._names import resolve_model_path

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def adapter_base(name_or_path: str) -> str | None:
    """The base model that an adapter folder, or the hub id of an adapter, names; None for what is no adapter.

    Raises:
        ValueError: The adapter, or one that it stands on, cannot be read or names no base, or they stand on each other.
    """
    names = [name_or_path]
    while (base := _named_base(names[-1])) is not None:
        if base in names:
            raise ValueError(
                f"The adapter {name_or_path!r} leads back to {base!r} and so has no base: write the model's name as "
                "base_model_name_or_path into its adapter_config.json."
            )
        names.append(base)
    return names[1] if len(names) > 1 else None


def _named_base(name_or_path: str) -> str | None:
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        path = find_adapter_config_file(resolve_model_path(name_or_path))
    except OSError:  # neither a folder nor the name of a repository: whoever loads it says so
        return None
    if path is None:
        return None
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): save the adapter again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object: save the adapter again.")
    if not config.get("base_model_name_or_path"):
        raise ValueError(
            f"The adapter {name_or_path!r} does not say what it belongs to: write its base model's name as "
            "base_model_name_or_path into its adapter_config.json."
        )
    return str(config["base_model_name_or_path"])


def attach_adapter(base: PreTrainedModel, name_or_path: str) -> PeftModel:
    """Puts a saved adapter on its base model, in place and without merging, ready to be trained on.

    Args:
        base: The model that the adapter was trained on.
        name_or_path: The adapter's folder or hub id; only safetensors are read. LoRA's weights are float32 whatever
            the base's dtype is.

    Raises:
        ValueError: There is no whole adapter, PEFT has no such kind, or it is another base's: not every weight of the
            one has its place in the other, in the same shape.
    """
    from peft import PeftConfig, PeftModelForCausalLM, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers.utils.hub import cached_file

    try:
        config = PeftConfig.from_pretrained(name_or_path)
        weights = load_file(str(cached_file(name_or_path, "adapter_model.safetensors")))
    except KeyError as error:
        raise _unknown(name_or_path, error) from error
    except (OSError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"The adapter {name_or_path!r} is not whole: {_reason(error)}") from error
    if config.peft_type is None:
        raise _unknown(name_or_path, None)
    if config.is_prompt_learning:
        raise ValueError(f"The adapter {name_or_path!r} is a learnt prompt, which cannot be merged: give a LoRA.")
    config.inference_mode = False
    try:
        model = PeftModelForCausalLM(base, config)
        for module in model.modules():
            if isinstance(module, LoraLayer):  # of no further use, and no layer with it can be copied
                module.kwargs.pop("tied_adapter", None)
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
    except ImportError as error:
        raise ValueError(
            f"The adapter {name_or_path!r} needs a library that is not there ({_reason(error)}): install it."
        ) from error
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"The adapter {name_or_path!r} does not fit {base.name_or_path!r}, the base that its adapter_config.json "
            f"names: {_reason(error)}"
        ) from error
    return model


def _unknown(name_or_path: str, kind: object) -> ValueError:
    return ValueError(
        f"The adapter {name_or_path!r} is of the peft_type {kind}, which this version of PEFT does not know: give a "
        "LoRA."
    )


def check_mergeable(model: PeftModel) -> None:
    """Merges a copy of every adapted layer, one at a time.

    Raises:
        ValueError: PEFT cannot merge one, as a LoRA with a bias into a layer without, the weights are quantised, or
            another layer has the same ones (`layer_replication`); tied embeddings and heads can be merged.
    """
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

    base: Any = model.get_base_model()
    if not isinstance(model.base_model, BaseTuner):
        raise _unmergeable("the model", f"PEFT does not merge {type(model.base_model).__name__}")
    if getattr(base, "is_quantized", False):
        raise _unmergeable("the model", "its weights are quantised")
    holders = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    ends = [end for end in (base.get_input_embeddings(), base.get_output_embeddings()) if end is not None]
    tied = {id(weight) for end in ends for weight in end.parameters()}
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            place = name.removeprefix("base_model.model.")
            weights = layer.get_base_layer().parameters(recurse=False)
            if any(holders[id(weight)] > 1 + (id(weight) in tied) for weight in weights):
                raise _unmergeable(place, "another layer has the same weights")
            try:  # each kind of layer refuses in its own way
                copy.deepcopy(layer).merge()
            except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                raise _unmergeable(place, _reason(error).rstrip(".")) from error


def _unmergeable(place: str, reason: str) -> ValueError:
    return ValueError(
        f"The adapter cannot be merged into {place} ({reason}): train and save it as an adapter, with "
        "merge_adapter=False."
    )


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
        return f"unknown or missing: {lines[0]}"
    return lines[1].strip() if isinstance(error, RuntimeError) and len(lines) > 1 else lines[0]
