"""Weights rounded to few bits: what was moved by less than a step of the grid moves back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dareu.audits._audit import Audit, Readings
from dareu.audits._options import whole_numbers
from dareu.audits._reader import Reader
from dareu.audits._weights import linear_layers, restored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LIBRARY = "bitsandbytes"


def round_to_bits(weight: Tensor, bits: int, group_size: int | None = None) -> Tensor:
    """The nearest weights on symmetric grids of 2^bits - 1 steps, each as wide as the largest weight of its group.

    Args:
        weight: (out, in).
        bits: 2 to 8.
        group_size: Neighbouring weights of a row that share a grid, where it divides `in`; else a row shares one.

    Returns:
        (out, in), in the weight's dtype.

    Raises:
        ValueError: `bits` or `group_size` is out of range.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}: give a whole number from 2 to 8.")
    if group_size is not None and group_size < 1:
        raise ValueError(f"group_size is {group_size}: give a whole number of at least 1.")
    width = group_size if group_size and weight.shape[1] % group_size == 0 else weight.shape[1]
    groups, most = weight.detach().float().reshape(-1, width), 2 ** (bits - 1) - 1
    scales = groups.abs().amax(dim=1).clamp_min(1e-30) / most
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(groups, scales, zeros, 0, -most, most)
    return rounded.reshape(weight.shape).to(weight.dtype)


def _quantised(
    model: PreTrainedModel,
    reader: Reader,
    bits: Sequence[int] | int = (8, 4),
    group_size: int | None = 64,
    nf4: bool | None = None,
) -> Iterator[tuple[str, Readings]]:
    """`nf4`: whether to round to bitsandbytes' NF4 too; default: where that library is installed."""
    library = find_spec(_LIBRARY) is not None
    if nf4 and not library:
        raise ValueError("nf4 needs bitsandbytes, which is not installed: pip install bitsandbytes, or leave nf4 out.")
    for number in whole_numbers("bits", bits):
        yield f"int{number}", _read_rounded(model, reader, partial(round_to_bits, bits=number, group_size=group_size))
    if library and nf4 is not False:
        yield "nf4", _read_rounded(model, reader, _as_nf4)


def _read_rounded(model: PreTrainedModel, reader: Reader, rounding: Callable[[Tensor], Tensor]) -> Readings:
    with restored(model):
        with torch.no_grad():
            for layer in linear_layers(model):
                weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T
                weight.copy_(rounding(weight))
        return reader.read()


def _as_nf4(weight: Tensor) -> Tensor:
    from bitsandbytes import functional

    packed, state = functional.quantize_nf4(weight.detach().float().contiguous())
    rounded: Tensor = functional.dequantize_nf4(packed, state)
    return rounded.to(weight.dtype)


QUANTISATION = Audit(_quantised, libraries=(_LIBRARY,))
