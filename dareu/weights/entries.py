"""The entries of one tensor that a mask selects, in pieces small enough to be worked on one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

#: Up to this share, selected entries are gathered; above, all are computed and the others keep their bits. A little
#: over a half, so that the tensors of a mask of density .5 are gathered although their own densities scatter.
COMPACT_UP_TO = 0.55
#: Entries of a piece: so few that a CPU's caches hold them, and so many that a GPU is busy with them.
_CPU_PIECE, _PIECE = 2**18, 2**24

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Piece(NamedTuple):
    """A stretch of a flat tensor, and what is selected in it.

    Attributes:
        entries: Its place in the flat tensor.
        state: The place of what belongs to it in a tensor of `SelectedEntries.size`.
        positions: int32 places of the selected entries within the piece; None where all are computed.
        mask: bool, an entry each; None where the positions alone are kept.
    """

    entries: slice
    state: slice
    positions: Tensor | None
    mask: Tensor | None

    def take(self, flat: Tensor) -> Tensor:
        """The selected entries as a copy; all entries as a view where all are computed."""
        part = flat[self.entries]
        return part if self.positions is None else part.index_select(0, self.positions)

    def copy(self, flat: Tensor) -> Tensor:
        """As `take`, but always a copy."""
        taken = self.take(flat)
        return taken.clone() if self.positions is None else taken

    def put(self, flat: Tensor, values: Tensor) -> None:
        """Writes what `take` took, rounded to the tensor's dtype; no bit of another entry changes."""
        part = flat[self.entries]
        values = values.to(flat.dtype)
        if self.positions is not None:
            part.scatter_(0, self.positions.long(), values)
        else:  # exclusive or: arithmetic would lose NaN and -0.0, and `where` takes twice as long
            old, new = part.view(_bits(part)), values.view(_bits(part))
            old.bitwise_xor_((old ^ new).bitwise_and_(self._ones(part)))

    def clear_others(self, flat: Tensor) -> None:
        """Sets the entries that are not selected to 0, also where they are NaN."""
        part = flat[self.entries]
        if self.mask is not None:
            part.view(_bits(part)).bitwise_and_(self._ones(part))
        else:
            selected = self.take(flat)
            part.zero_()
            self.put(flat, selected)

    def _ones(self, like: Tensor) -> Tensor:
        """All bits of each selected entry."""
        assert self.mask is not None
        return self.mask.view(torch.int8).neg().to(_bits(like))


class SelectedEntries:
    """What a mask selects of one tensor, or of this process's part of a sharded one, kept on its device.

    Kept are positions of 4 bytes a selected entry, or above `COMPACT_UP_TO` the mask, of 1 byte an entry. A mask that
    is on the device already is not copied, and used beside the positions where that is quicker.

    Args:
        mask: bool of the tensor's whole shape, on any device.
        tensor: What it selects of.
    """

    def __init__(self, mask: Tensor, tensor: Tensor) -> None:
        local = local_part(tensor)
        self.device = local.device
        self.numel = local.numel()
        own = part_like(tensor, mask)
        here = own.to(self.device).reshape(-1)
        borrowed = here.data_ptr() == own.data_ptr()
        self.count = int(here.sum())
        step = _CPU_PIECE if self.device.type == "cpu" else _PIECE
        compact = self.count <= COMPACT_UP_TO * self.numel
        self.size = self.count if compact else self.numel
        """Entries of a state tensor."""
        self._pieces: list[Piece] = []
        done = 0
        for start in range(0, self.numel, step):
            entries = slice(start, min(start + step, self.numel))
            part = here[entries]
            positions = part.nonzero().squeeze(1).to(torch.int32) if compact else None
            size = len(part) if positions is None else len(positions)
            state = slice(done, done + size)
            self._pieces.append(Piece(entries, state, positions, part if borrowed or not compact else None))
            done += size
        self.nbytes = 4 * self.count if compact else self.numel
        """Bytes of the positions or of the mask, a borrowed mask included only where it is all there is."""

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._pieces)

    def fits(self, tensor: Tensor) -> bool:
        """Whether this is still of the same part, on the same device."""
        local = local_part(tensor)
        return local.device == self.device and local.numel() == self.numel

    def gather(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """What a state tensor holds of a tensor of the whole shape: (size,), a copy."""
        values = torch.empty(self.size, dtype=dtype, device=self.device)
        with flat_part(tensor) as flat:
            for piece in self:
                values[piece.state] = piece.take(flat)
        return values

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """A tensor of the whole shape, sharded as `like`: `values` (size,) where selected, 0 elsewhere."""
        whole = torch.zeros_like(like, dtype=values.dtype)
        with flat_part(whole) as flat:
            for piece in self:
                piece.put(flat, values[piece.state])
        return whole


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, whose memory it shares; others as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextmanager
def flat_part(tensor: Tensor) -> Iterator[Tensor]:
    """The local part in one dimension, to be read and written."""
    local = local_part(tensor)
    flat = local.reshape(-1)
    yield flat
    if not local.is_contiguous():  # a copy, then
        local.copy_(flat.view_as(local))


def part_like(sharded: Tensor, whole: Tensor) -> Tensor:
    """The part of a whole tensor that this process has of a sharded one.

    It takes no communication, for every process has the whole.
    """
    if not isinstance(sharded, DTensor):
        return whole
    whole = whole.to(local_part(sharded).device)
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements, src_data_rank=None).to_local()


def _bits(tensor: Tensor) -> torch.dtype:
    return _BITS[tensor.element_size()]
