"""`MaskedAdamW` under DeepSpeed's ZeRO, which shows an optimizer flat pieces of the weights that have no names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from dareu.masks.optimizer import MaskedAdamW, NamedParameters


class ZeroMaskedAdamW(MaskedAdamW):
    """`MaskedAdamW` that DeepSpeed may take for ZeRO-1, 2 and 3; call `take_pieces` once it has.

    Each process trains the float32 pieces that ZeRO gives it, and of the state it keeps what belongs to them. ZeRO
    takes the norm of the gradients itself, so that those of frozen entries are dropped before, where the backward makes
    them: the norm is that of the selected entries, and a frozen NaN does not reach it.

    Args:
        named_parameters: As `MaskedAdamW` takes them, whole, before DeepSpeed does.
        mask: As `MaskedAdamW` takes it.
        **options: Those of `MaskedAdamW`.

    Raises:
        ValueError: As `MaskedAdamW` does.
    """

    def __init__(
        self, named_parameters: NamedParameters | Iterable[dict[str, Any]], mask: Mapping[str, Tensor], **options: Any
    ) -> None:
        super().__init__(named_parameters, mask, **options)
        self._names: dict[Tensor, str] = {}
        self._pieces: dict[Tensor, str] = {}
        for group in self.param_groups:
            self._names.update(zip(group["params"], group.pop("param_names"), strict=True))
        for parameter, name in self._names.items():
            if parameter.requires_grad:
                parameter.register_hook(partial(_drop_others, mask[name]))

    def take_pieces(self, zero: Any) -> None:
        """Finds out which entries of which weights the pieces are.

        Args:
            zero: DeepSpeed's optimizer around this one.
        """
        masks = {}
        for i, (piece, places) in enumerate(_pieces(zero)):
            name = self._pieces[piece] = f"piece {i}"
            masks[name] = torch.zeros(piece.shape, dtype=torch.bool)
            for parameter, start, stop, place in places:
                own = self._mask[self._names[parameter]].reshape(-1)[start:stop]
                masks[name][place : place + len(own)] = own
        self._mask = masks

    def _named(self, group: dict[str, Any]) -> Iterable[tuple[str, Tensor]]:
        if "param_names" in group:  # it is being made
            return super()._named(group)
        return [(self._pieces[piece], piece) for piece in group["params"]]


#: A weight, the first entry of it that is in a piece and the one after the last, and the first one's place there.
Place = tuple[Tensor, int, int, int]


def _pieces(zero: Any) -> Iterator[tuple[Tensor, list[Place]]]:
    """This process's pieces, and what each is made of; entries past a weight's end are padding."""
    if hasattr(zero, "fp32_partitioned_groups_flat"):  # ZeRO-3: the same share of every weight, one after the other
        for piece, weights in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True):
            places, place = [], 0
            for weight in weights:
                size = weight.partition_numel()
                start = size * dist.get_rank(weight.ds_process_group)
                places.append((weight, start, start + size, place))
                place += size
            assert place == piece.numel()
            yield piece, places
        return
    for i, piece in enumerate(zero.single_partition_of_fp32_groups):  # one share of all weights of a group in a row
        first = piece.numel() * dist.get_rank(zero.real_dp_process_group[i])
        places = []
        for weight, offset in zip(zero.round_robin_bit16_groups[i], zero.round_robin_bit16_offsets[i], strict=True):
            start, stop = max(0, first - offset), min(weight.numel(), first + piece.numel() - offset)
            if start < stop:
                places.append((weight, start, stop, offset + start - first))
        yield piece, places


def _drop_others(mask: Tensor, grad: Tensor) -> Tensor:
    """The gradient, 0 outside of the mask, also where it was NaN."""
    return grad.masked_fill(~mask.to(grad.device), 0)
