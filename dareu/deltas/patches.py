"""An unlearned model as a patch of its base: the entries that changed, and their new values.

Nothing but what changed is written: the entry of a mask that kept its value would only repeat the base's weights.
Old values are in no patch; `apply_patch` can put them into a separate undo file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from safetensors import safe_open
from tqdm import tqdm

from dareu.deltas._patch_file import (
    Patch,
    PatchedTensor,
    describe,
    pack_positions,
    pack_values,
    positions_name,
    unpack_positions,
    unpack_values,
    values_name,
)
from dareu.files import atomic_file, atomic_folder
from dareu.weights import CheckpointWeights, fingerprint
from dareu.weights.files import (
    StoredTensor,
    aligned,
    copy_model_files,
    first_difference,
    stored_tensors,
    writing_tensors,
)

__all__ = ["Patch", "apply_patch", "make_patch"]


def make_patch(base: str | os.PathLike[str], result: str | os.PathLike[str], path: str | os.PathLike[str]) -> Patch:
    """Writes what turns one saved model's weights into another's.

    Positions are a bit per entry or, where smaller, the gaps between them; both they and the values' bytes are
    deflated. Float32 values and positions never take more than the share of changed entries + .032 of the model's
    size; of 16-bit weights a bit per entry is .0625, which deflating the exponents more than makes up for. One tensor
    at a time is in memory.

    Args:
        base: The folder of the model before unlearning, safetensors in one file or several.
        result: The folder of the model after it. A tied tensor may be stored once or twice on either side.
        path: The file to write or to replace.

    Returns:
        The patch that was written.

    Raises:
        ValueError: The models differ in a tensor's name, shape or dtype, or in no bit at all, or `path` is a file
            of one of the models.
    """
    old = stored_tensors(base)
    found = stored_tensors(result)
    if Path(path).resolve() in {tensor.file.resolve() for tensor in (*old.values(), *found.values())}:
        raise ValueError(f"{os.fspath(path)!r} holds a model's weights; give the patch another name.")
    new = aligned(old, found)
    difference = first_difference(old, new)
    if difference is not None:
        raise ValueError(
            f"{os.fspath(result)!r} is no model that was trained from {os.fspath(base)!r}: in it, {difference}; "
            "a patch needs the same tensors in the same dtype ('unlearn --dtype' says which is saved)."
        )
    tensors: dict[str, PatchedTensor] = {}
    with atomic_file(path) as temporary:
        with writing_tensors(temporary) as writer:
            for name, place in tqdm(old.items(), desc="comparing", unit="tensor", disable=None, leave=False):
                after = new[name].bits()
                moved = np.flatnonzero(place.bits() != after)
                entry = PatchedTensor(place.dtype, place.shape, place.nbytes, len(after), len(moved))
                tensors[name] = entry
                if entry.changed:
                    writer.add(positions_name(name), pack_positions(moved, entry))
                    writer.add(values_name(name, forgotten=False), pack_values(after[moved]))
            if not any(entry.changed for entry in tensors.values()):
                raise ValueError(f"{os.fspath(result)!r} equals {os.fspath(base)!r} bit for bit; there is no patch.")
            fingerprints = fingerprint(CheckpointWeights(old)), fingerprint(CheckpointWeights(new))
            patch = Patch(Path(path), *fingerprints, forgotten=False, tensors=tensors)
            describe(writer, patch)
    return patch


def apply_patch(
    patch: str | os.PathLike[str],
    base: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    undo: str | os.PathLike[str] | None = None,
) -> Patch:
    """Writes the folder of the patched model: the base's files with the changed entries replaced in their place.

    Configuration and tokenizer are copied; hidden files and other files of weights are not. The folder appears whole
    and with the promised fingerprint, or not at all.

    Args:
        patch: The patch file, or an undo file.
        base: The folder of the model that the patch was made for, in any sharding.
        output_dir: The folder to make.
        undo: A file to write that turns the patched weights back into the base's, every byte. It holds what was
            forgotten and must not be shipped, so its name has to contain `undo`.

    Returns:
        The patch that was applied.

    Raises:
        ValueError: The patch is damaged or of another base, the output is there already, or the undo file would
            lie among the files to ship.
    """
    made = Patch.read(patch)
    output_dir, folder = Path(output_dir), Path(base)
    if output_dir.exists():
        raise ValueError(f"{os.fspath(output_dir)!r} is there already; give the name of a new folder.")
    _check_undo(undo, output_dir)
    places = stored_tensors(folder)
    _check_base(made, places, folder)
    with atomic_folder(output_dir) as new_folder, ExitStack() as stack:
        copy_model_files(folder, new_folder, {tensor.file for tensor in places.values()})
        writer = None
        if undo is not None:
            writer = stack.enter_context(writing_tensors(stack.enter_context(atomic_file(undo))))
        file = stack.enter_context(safe_open(made.path, framework="np"))
        for name, entry in tqdm(made.tensors.items(), desc="patching", unit="tensor", disable=None, leave=False):
            if not entry.changed:
                continue
            place = places[name]
            bits = dataclasses.replace(place, file=new_folder / place.file.name).bits("r+")
            packed = file.get_tensor(positions_name(name)).tobytes()
            values = file.get_tensor(values_name(name, forgotten=made.forgotten)).tobytes()
            where = unpack_positions(packed, entry)
            if writer is not None:
                writer.add(positions_name(name), packed)
                writer.add(values_name(name, forgotten=not made.forgotten), pack_values(bits[where]))
            bits[where] = unpack_values(values, bits.dtype, entry.changed)
        found = fingerprint(CheckpointWeights(new_folder))
        if found != made.result:
            raise ValueError(f"The patched weights have fingerprint {found} in place of {made.result}; get both again.")
        if writer is not None:
            assert undo is not None
            describe(writer, Patch(Path(undo), made.result, made.base, not made.forgotten, made.tensors))
    return made


def _check_base(patch: Patch, places: Mapping[str, StoredTensor], folder: Path) -> None:
    expected = {
        name: StoredTensor(folder, name, entry.dtype, entry.shape, 0, entry.nbytes)
        for name, entry in patch.tensors.items()
    }
    difference = first_difference(expected, places)
    if difference is not None:
        raise ValueError(f"The patch is for a model of another architecture than {str(folder)!r}: {difference}.")
    found = fingerprint(CheckpointWeights(places))
    if found != patch.base:
        raise ValueError(
            f"The patch is for other weights than those in {str(folder)!r}: it wants fingerprint {patch.base}, "
            f"and theirs is {found}."
        )


def _check_undo(undo: str | os.PathLike[str] | None, output_dir: Path) -> None:
    if undo is None:
        return
    path = Path(undo)
    if "undo" not in path.name or path.suffix != ".safetensors":
        raise ValueError(
            f"{os.fspath(undo)!r} will hold forgotten data: give it a name with 'undo' in it that ends in .safetensors."
        )
    if output_dir.resolve() in path.resolve().parents:
        raise ValueError(f"{os.fspath(undo)!r} will hold forgotten data: put it outside the folder of the new model.")
    if path.exists():
        raise ValueError(f"{os.fspath(undo)!r} is there already; give the undo file another name.")
