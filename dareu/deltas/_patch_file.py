"""The file of a patch: what it says of itself, and how positions and values are written."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dareu.weights.files import Bits, TensorWriter, hash_of

_FORMAT = "dareu-patch-1"


@dataclass(frozen=True)
class PatchedTensor:
    """What a patch says of one tensor.

    Attributes:
        dtype: As safetensors spells it.
        shape: Of the tensor.
        nbytes: Of the tensor.
        entries: How many it has.
        changed: How many of them the patch changes.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    entries: int
    changed: int

    @property
    def as_gaps(self) -> bool:
        """Whether four bytes per position take less than a bit per entry."""
        return 4 * self.changed < self.entries // 8 and self.entries < 1 << 32


@dataclass(frozen=True)
class Patch:
    """A patch file that was read and found whole.

    Attributes:
        path: The file.
        base: `dareu.masks.fingerprint` of the weights that it applies to.
        result: The same of the weights that it makes of them.
        forgotten: True of an undo file: its values are those that were to be forgotten.
        tensors: All tensors of the model by name, also those that stay as they are.
    """

    path: Path
    base: str
    result: str
    forgotten: bool
    tensors: Mapping[str, PatchedTensor] = field(repr=False)

    @property
    def changed(self) -> int:
        """Number of entries that the patch changes."""
        return sum(tensor.changed for tensor in self.tensors.values())

    @property
    def entries(self) -> int:
        """Number of all entries of the model."""
        return sum(tensor.entries for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Size of the patch file."""
        return self.path.stat().st_size

    @property
    def model_nbytes(self) -> int:
        """Size of the model's weights."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what a patch says and checks all its bytes; the values are not kept in memory.

        Raises:
            ValueError: There is no such file, or it is cut short, altered, or no patch.
        """
        if not Path(path).is_file():
            raise ValueError(f"There is no patch file {os.fspath(path)!r}; give the path of one.")
        try:
            with safe_open(path, framework="np") as file:
                header = json.loads((file.metadata() or {})["patch"])
                content = header.pop("content")
                hashes = {name: hash_of(file.get_tensor(name).data) for name in file.keys()}
            if header["format"] != _FORMAT or content != _content(header, hashes):
                raise ValueError("not the content that was saved")
            tensors = {
                name: PatchedTensor(**entry | {"shape": tuple(entry["shape"])})
                for name, entry in header["tensors"].items()
            }
            return cls(Path(path), header["base"], header["result"], header["forgotten"], tensors)
        except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} is not a whole patch ({type(error).__name__}: {error}); get it again."
            ) from error


def values_name(name: str, *, forgotten: bool) -> str:
    """The name in a patch, or in an undo file, of the values of a tensor of the model."""
    return f"{'forgotten_values' if forgotten else 'values'}/{name}"


def positions_name(name: str) -> str:
    """The name in a patch of the positions at which a tensor of the model changes."""
    return f"positions/{name}"


def describe(writer: TensorWriter, patch: Patch) -> None:
    """Writes what `Patch.read` will read, once all tensors were added."""
    header: dict[str, Any] = {
        "format": _FORMAT,
        "holds": "FORGOTTEN DATA: the old values; do not ship" if patch.forgotten else "new values only",
        **{name: getattr(patch, name) for name in ("base", "result", "forgotten")},
        "tensors": {name: asdict(entry) for name, entry in patch.tensors.items()},
    }
    # One metadata entry, for several would be read in no fixed order.
    writer.metadata["patch"] = json.dumps(header | {"content": _content(header, writer.hashes)})


def _content(header: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    return hash_of(json.dumps([header, hashes], sort_keys=True).encode())


def pack_positions(positions: NDArray[np.int64], entry: PatchedTensor) -> bytes:
    """Deflates ascending positions (entry.changed,): as gaps where those are smaller, as a bit per entry elsewhere."""
    if entry.as_gaps:
        return pack_values(np.diff(positions, prepend=0).astype("<u4"))
    mask = np.zeros(entry.entries, dtype=bool)
    mask[positions] = True
    return pack_values(np.packbits(mask, bitorder="little"))


def unpack_positions(packed: bytes, entry: PatchedTensor) -> NDArray[Any]:
    """What `pack_positions` packed, as an index: positions (entry.changed,) or a bool mask (entry.entries,)."""
    if entry.as_gaps:
        return np.cumsum(unpack_values(packed, np.dtype("<u4"), entry.changed), dtype=np.int64)
    bits = unpack_values(packed, np.dtype("u1"), -(-entry.entries // 8))
    return np.unpackbits(bits, count=entry.entries, bitorder="little").view(bool)


def pack_values(values: Bits) -> bytes:
    """Deflates first bytes, then second bytes and so on: the exponents of floats are alike, their last bits random."""
    planes = np.ascontiguousarray(values).view("u1").reshape(len(values), values.itemsize).T
    return zlib.compress(planes.tobytes(), level=1)


def unpack_values(packed: bytes, kind: np.dtype[Any], count: int) -> Bits:
    """The `count` values that `pack_values` packed."""
    planes = np.frombuffer(zlib.decompress(packed), dtype="u1").reshape(kind.itemsize, count)
    return np.ascontiguousarray(planes.T).view(kind).reshape(count)
