"""Prompts that several rows of a batch have in common, computed once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers.cache_utils import DynamicCache, DynamicLayer

from dareu.models._head import is_compiled, unwrapped


@contextmanager
def shared_prompts(model: nn.Module, num_tokens: int) -> Iterator[None]:
    """Within this block, a forward computes equal beginnings of rows once.

    The decoder then gives hidden states from the beginnings' end on only. Gradients flow as ever: keys and values of a
    beginning gather those of all rows that read them. Where the decoder keeps anything but keys and values of all its
    tokens, where it is compiled or sharded, recomputes its activations or turns positions by a row's length, and where
    little would be saved, nothing is shared. Rows with a beginning in common have its dropout in common as well.

    Args:
        model: A causal language model. It is given `input_ids`, `attention_mask` and `position_ids`.
        num_tokens: Tokens at the head of each row, padding included, that can be shared.
    """
    decoder = _decoder(model) if num_tokens > 0 else None
    if decoder is None:
        yield
        return
    whole = decoder.forward

    def forward(input_ids: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        rows: dict[str, Any] = {"input_ids": input_ids}
        rows |= {name: kwargs.get(name) for name in ("attention_mask", "position_ids")}
        others = [value for name, value in kwargs.items() if name not in rows]
        special = kwargs.get("past_key_values") is not None or kwargs.get("output_router_logits")
        if args or special or any(part is None for part in rows.values()) or any(map(torch.is_tensor, others)):
            return whole(input_ids, *args, **kwargs)
        heads = torch.stack([rows[name][:, :num_tokens] for name in ("input_ids", "attention_mask")], 1)
        unique, of_row = heads.unique(dim=0, return_inverse=True)
        if 4 * len(unique) > 3 * len(heads):
            return whole(input_ids, *args, **kwargs)
        first = torch.stack([(of_row == number).nonzero()[0, 0] for number in range(len(unique))])
        cache = DynamicCache(config=decoder.config)
        kwargs |= {"past_key_values": cache, "use_cache": True}
        whole(**kwargs | {name: part[first, :num_tokens] for name, part in rows.items()})
        cache.batch_select_indices(of_row)
        for name in ("input_ids", "position_ids"):
            rows[name] = rows[name][:, num_tokens:]
        return whole(**kwargs | rows)

    vars(decoder)["forward"] = forward
    try:
        yield
    finally:
        del vars(decoder)["forward"]


def _decoder(model: nn.Module) -> Any:
    """What gives a model's last hidden state, where its past is all in keys and values; else None."""
    if is_compiled(model) or any(map(_forbids_parts, model.modules())):
        return None
    inner: Any = unwrapped(model)
    decoder = inner.get_decoder() if hasattr(inner, "get_decoder") else None
    if decoder is None or decoder is inner or decoder._compiled_call_impl is not None or "forward" in vars(decoder):
        return None
    if not {"position_ids", "past_key_values"} <= inspect.signature(type(decoder).forward).parameters.keys():
        return None
    layers = DynamicCache(config=decoder.config).layers
    return decoder if layers and all(type(layer) is DynamicLayer for layer in layers) else None


def _forbids_parts(module: nn.Module) -> bool:
    """Whether rows cannot go through a module part by part: it is sharded, recomputes, or looks at their length."""
    recomputes = getattr(module, "gradient_checkpointing", False)
    rope = str(getattr(module, "rope_type", ""))  # or one of each type of layer
    by_length = "dynamic" in rope or "longrope" in rope
    return isinstance(module, FSDPModule) or hasattr(module, "ds_id") or recomputes or by_length
