"""Merging the saved models that were trained from one base, without loading any of them."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dareu.deltas.task_vectors import MERGE_METHODS, MergeMethod, TaskVector, merge_vectors
from dareu.files import atomic_folder
from dareu.weights import CheckpointWeights
from dareu.weights.files import StoredTensor, aligned, copy_model_files, first_difference, hash_of, stored_tensors

__all__ = ["MERGE_METHODS", "Merge", "MergeMethod", "TaskVector", "merge_models", "merge_vectors"]

#: Safetensors' names of the dtypes that are merged.
_FLOATS = ("F32", "F16", "BF16")


class Merge(NamedTuple):
    """What a merge did."""

    entries: int
    """Of the model, tied weights counted once."""
    moved: int
    """Those whose bits are no longer the base's."""


def merge_models(
    base: str | os.PathLike[str],
    parts: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    method: MergeMethod = "ties",
    *,
    density: float = 0.2,
    weight: float = 1.0,
    seed: int = 0,
) -> Merge:
    r"""Writes the model :math:`\theta_o + \lambda \, m` with m merged from the task vectors of trained models.

    The folder holds the base's files, with its dtype and sharding. An entry that the merged vector leaves at 0 keeps
    every bit; the others are computed in float32 and rounded once. A tied weight counts once, in however many places
    it is stored. No model is in memory: the base's and the parts' tensors of one name are, in float32, and the masks
    that `merge_vectors` speaks of.

    Args:
        base: The folder of the model before training, safetensors in one file or several.
        parts: The folders of models trained from it.
        output_dir: The folder to make; it appears whole or not at all.
        method: As in `merge_vectors`.
        density: As in `merge_vectors`.
        weight: :math:`\lambda`, any finite number; a negative one turns training back.
        seed: As in `merge_vectors`.

    Raises:
        ValueError: If the output is there already, a part differs from the base in a tensor's name, shape or dtype, an
            entry is not finite, or as in `merge_vectors`.
    """
    output_dir = Path(output_dir)
    if output_dir.exists():
        raise ValueError(f"{os.fspath(output_dir)!r} is there already; give the name of a new folder.")
    if not math.isfinite(weight):
        raise ValueError(f"The merge weight is {weight}; give a finite number.")
    places = stored_tensors(base)
    trained = [_trained(places, base, part) for part in parts]
    twins = _twins(places, trained)
    names = [name for name, place in places.items() if place.dtype in _FLOATS and name not in twins]
    before = CheckpointWeights({name: places[name] for name in names})
    vectors = [
        TaskVector(before, CheckpointWeights(found), os.fspath(part))
        for part, found in zip(parts, trained, strict=True)
    ]
    merged = merge_vectors(vectors, method, density=density, seed=seed)
    moved = 0
    with atomic_folder(output_dir) as folder:
        copy_model_files(Path(base), folder, {place.file for place in places.values()})
        progress = tqdm(merged, desc="merging", unit="tensor", total=len(names), disable=None, leave=False)
        for name, change in progress:
            old = before[name]
            new = torch.where(change == 0, old, (old.float() + weight * change).to(old.dtype))
            if not torch.isfinite(new).all():
                raise ValueError(f"The merge weight {weight} takes {name!r} beyond {old.dtype}; give a smaller one.")
            for twin in (name, *(other for other, first in twins.items() if first == name)):
                place = dataclasses.replace(places[twin], file=folder / places[twin].file.name)
                bits = place.bits("r+")
                values = new.reshape(-1).view(torch.uint8).numpy().view(bits.dtype)
                if twin == name:
                    moved += int(np.count_nonzero(bits != values))
                bits[:] = values
    return Merge(sum(math.prod(places[name].shape) for name in names), moved)


def _trained(
    base: Mapping[str, StoredTensor], base_folder: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> dict[str, StoredTensor]:
    """The tensors of a trained model under the base's names, if they can be merged with it."""
    found = aligned(base, stored_tensors(folder))
    difference = first_difference(base, found)
    if difference is not None:
        raise ValueError(
            f"{os.fspath(folder)!r} is no model that was trained from {os.fspath(base_folder)!r}: in it, {difference}; "
            "models to merge need the same tensors in the same dtype ('unlearn --dtype' says which is saved)."
        )
    for name, place in base.items():
        if place.dtype not in _FLOATS and not np.array_equal(place.bits(), found[name].bits()):
            raise ValueError(
                f"{os.fspath(folder)!r} has other values in {name!r} than {os.fspath(base_folder)!r}, and "
                f"{place.dtype} is not merged; give models in {', '.join(_FLOATS)}."
            )
    return found


def _twins(base: Mapping[str, StoredTensor], trained: Sequence[Mapping[str, StoredTensor]]) -> dict[str, str]:
    """Matrices that equal an earlier one in every model, as tied weights stored twice do, and the name of that one."""
    twins: dict[str, str] = {}
    seen: dict[tuple[str, tuple[int, ...], str], str] = {}
    for name, place in base.items():
        if len(place.shape) < 2:  # fresh norms are all alike
            continue
        first = seen.setdefault((place.dtype, place.shape, hash_of(place.bits().data)), name)
        if first != name and all(np.array_equal(part[first].bits(), part[name].bits()) for part in trained):
            twins[name] = first
    return twins
