"""Safetensors files without loading them: a model's files, where each tensor's bytes lie, and writing them in turn."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

#: Endings of files that may hold weights, in whatever format; a copy of a model leaves out those that are not its own.
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".pkl", ".npz"}

#: Unsigned integers, little-endian as safetensors files are.
Bits = NDArray[Any]


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies on disk.

    Attributes:
        file: The safetensors file.
        name: The tensor's name in it.
        dtype: As safetensors spells it, such as `"BF16"`.
        shape: Of the tensor.
        start: Of its bytes in the file.
        nbytes: How many they are.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def itemsize(self) -> int:
        """Bytes of an entry; 1 where entries do not fill whole bytes, which are then looked at by the byte."""
        size, rest = divmod(self.nbytes, max(1, math.prod(self.shape)))
        return size if size in (1, 2, 4, 8) and not rest else 1

    def bits(self, mode: Literal["r", "r+"] = "r") -> Bits:
        """The entries' bit patterns (nbytes / itemsize,) mapped from the file; `"r+"` writes through to it."""
        kind, count = np.dtype(f"<u{self.itemsize}"), self.nbytes // self.itemsize
        if not count:  # nothing cannot be mapped
            return np.empty(0, dtype=kind)
        return np.memmap(self.file, dtype=kind, mode=mode, offset=self.start, shape=(count,))


def weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The safetensors files that hold the weights of a saved model, in alphabetical order.

    As transformers looks for them: `model.safetensors`, or else the files that `model.safetensors.index.json`
    lists; only where there is neither, all safetensors files. Others beside them (a patch, another format) do
    not count.

    Raises:
        ValueError: The folder holds no safetensors file, or not one that its index lists.
    """
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ValueError(f"There is no safetensors file in {os.fspath(folder)!r}; give a saved model's folder.")
        return files
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("not names of files")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{os.fspath(index)!r} is damaged; copy the model's folder again.") from error
    files = sorted(folder / name for name in names)
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path.name}, which the index lists, is missing in {os.fspath(folder)!r}; copy it again.")
    return files


def stored_tensors(folder: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """The tensors of a saved model by name, in the order of its files.

    Raises:
        ValueError: There is no safetensors file, or one is not whole.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="np"):
                pass  # it checks that header and size fit
        except SafetensorError as error:
            raise ValueError(f"{os.fspath(path)!r} is not a whole safetensors file ({error}).") from error
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0])):
            start, end = entry["data_offsets"]
            place = StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start)
            found[name] = place
    return found


def hash_of(content: bytes | memoryview) -> str:
    """The BLAKE2 hash of bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class TensorWriter:
    """Collects byte strings on disk, to become the uint8 tensors of one safetensors file.

    Attributes:
        metadata: Of the file; to be filled before it is written.
        hashes: Tensor name to `hash_of` its bytes.
    """

    def __init__(self, data: BinaryIO) -> None:
        self.metadata: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        self._data = data
        self._header: dict[str, Any] = {}

    def add(self, name: str, content: bytes) -> None:
        """Writes the next tensor."""
        start = self._data.tell()
        self._data.write(content)
        self.hashes[name] = hash_of(content)
        offsets = [start, start + len(content)]
        self._header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": offsets}

    def write_to(self, path: Path) -> None:
        """Writes the file: its header, which has to come first, and what was collected."""
        text = json.dumps({"__metadata__": self.metadata, **self._header}, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._data.seek(0)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(self._data, file, 1 << 20)


@contextmanager
def writing_tensors(path: Path) -> Iterator[TensorWriter]:
    """Opens a `TensorWriter` whose file is written at the end of the block, if that is reached.

    What is collected lies in an unnamed file on the same disk, so no more than a tensor is in memory.
    """
    with tempfile.TemporaryFile(dir=path.parent) as data:
        writer = TensorWriter(data)
        yield writer
        writer.write_to(path)


def first_difference(expected: Mapping[str, StoredTensor], found: Mapping[str, StoredTensor]) -> str | None:
    """What tells two models' tensors apart by name, shape or dtype, as a clause; None where nothing does."""
    for name, tensor in expected.items():
        if name not in found:
            return f"{name!r} is missing"
        if found[name].shape != tensor.shape:
            return f"{name!r} has shape {list(found[name].shape)} in place of {list(tensor.shape)}"
        if found[name].dtype != tensor.dtype:
            return f"{name!r} is {found[name].dtype} in place of {tensor.dtype}"
    extra = next((name for name in found if name not in expected), None)
    return None if extra is None else f"{extra!r} is one too many"


def aligned(base: Mapping[str, StoredTensor], result: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The result's tensors under the base's names, where one side stores a tied tensor once and the other twice."""
    found = dict(result)
    for name in base.keys() - result.keys():
        twin = next((other for other in base.keys() & result.keys() if _tied(base[name], base[other])), None)
        if twin is not None:
            found[name] = result[twin]
    for name in result.keys() - base.keys():
        if any(_tied(result[name], result[other]) for other in base.keys() & result.keys()):
            del found[name]
    return found


def _tied(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether both are one matrix stored twice; vectors do not count, for those of fresh norms are all alike."""
    alike = len(a.shape) > 1 and a.shape == b.shape and a.dtype == b.dtype
    return alike and bool(np.array_equal(a.bits(), b.bits()))


def copy_model_files(folder: Path, new_folder: Path, weights: Collection[Path]) -> None:
    """Copies a model's files; of those that may hold weights, only the ones named."""
    templates = folder.glob("additional_chat_templates/*")
    for path in (*folder.iterdir(), *templates):
        if path in weights or (path.is_file() and path.name[0] != "." and path.suffix not in _WEIGHTS):
            copy = new_folder / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
