"""Which weights a mask keeps: the highest scores of all, of each layer or of each tensor."""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from dareu.masks.controls import RandomScores
from dareu.masks.weight_mask import WeightMask
from dareu.masks.weight_scores import WeightScores
from dareu.weights import fingerprint
from dareu.weights.entries import local_part
from dareu.weights.sharding import first_not_finite, gathered, mesh_of, sharded_like, summed, whole

#: Among which entries the share of a mask is taken: all, those of a layer, or those of a tensor.
Scope = Literal["global", "layer", "tensor"]
#: The names of `Scope`.
SCOPES: tuple[str, ...] = get_args(Scope)

_CHUNK = 1 << 20
"""Entries looked at together; bounds the memory that a selection takes beside the masks."""

_NOT_FINITE = 0x7F80
"""The first of the bit patterns' upper halves that are infinities and NaN."""


def select_top(scores: Mapping[str, Tensor], density: float, scope: Scope = "global") -> dict[str, Tensor]:
    """Selects the entries of largest absolute score.

    Exactly `ceil(density * n)` of the `n` entries that compete are selected, a rounding error of the product
    aside (0.07 of 100 are 7). Among equal scores the earlier entry wins: names in the mapping's order, then the
    position in the tensor. The threshold is found by two histogram passes over the float32 bit pattern,
    without sorting or copying the scores, which are read three times, a tensor at a time.

    Of sharded scores, as `wagle_scores` gives them, each process counts its own part, and the counts are summed. Every
    process must call this then, and gets the whole mask, which is that of whole scores.

    Args:
        scores: Parameter name to scores of any shape, ranked in float32.
        density: Share of the entries to select, in (0, 1].
        scope: Which entries compete: all (`"global"`), those of a layer (`"layer"`: the parameters whose names
            agree up to the first number, such as `model.layers.3`; a tensor outside of layers is one of its own), or
            those of a tensor (`"tensor"`).

    Returns:
        Parameter name to a bool tensor of the scores' shape on the CPU, true where selected.

    Raises:
        ValueError: If `density` is out of range, `scope` is unknown, there are no scores, a score is not finite, or
            scores are sharded otherwise than by rows over all processes.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; give the share of weights to train, in (0, 1].")
    if scope not in SCOPES:
        raise ValueError(f"scope is {scope!r}; give one of {', '.join(SCOPES)}.")
    groups: dict[str, list[str]] = {}
    for name in scores:
        groups.setdefault({"global": "", "layer": _layer(name), "tensor": name}[scope], []).append(name)
    masks: dict[str, Tensor] = {}
    for names in groups.values():
        masks.update(_largest(scores, names, density))
    if not any(mask.numel() for mask in masks.values()):
        raise ValueError("There are no weights to select from; give the parameters of the model.")
    return {name: masks[name] for name in scores}


def weight_masks(
    model: nn.Module, scores: WeightScores, densities: Sequence[float], scope: Scope = "global"
) -> Iterator[WeightMask]:
    """Masks of several densities from one set of scores, one after the other.

    Where the model is sharded every process must ask for them, and gets the same.

    Args:
        model: The model that was scored, as it was then.
        scores: Scores of its parameters; those that were not scored are frozen whole, and do not count in a density.
        densities: Shares of the scored entries to select, each in (0, 1].
        scope: As in `select_top`.

    Yields:
        A mask of all parameters of the model for each density, in their order.

    Raises:
        ValueError: As `select_top` does.
    """
    made_for = fingerprint(model)
    for density in densities:
        chosen = select_top(scores, density, scope)
        masks = {
            name: chosen[name] if name in chosen else torch.zeros(parameter.shape, dtype=torch.bool)
            for name, parameter in model.named_parameters()
        }
        yield WeightMask(masks, density, scores.score, made_for, scores.gamma)


def random_mask(shapes: nn.Module | Mapping[str, Sequence[int]], density: float, seed: int) -> dict[str, Tensor]:
    """Selects entries at random, as many as `select_top` does: the control for every mask.

    Each entry gets a random number and the largest are selected, so every set of `ceil(density * n)`
    entries is equally likely (but for the order of equal numbers at the threshold).

    Args:
        shapes: A model, or parameter name to shape.
        density: Share of all entries to select, in (0, 1].
        seed: Seed of `RandomScores`; no global random state is read or moved.

    Returns:
        Parameter name to a bool tensor of the given shape on the CPU, true where selected.

    Raises:
        ValueError: If `density` is out of range or there are no entries.
    """
    if isinstance(shapes, nn.Module):
        shapes = {name: parameter.shape for name, parameter in shapes.named_parameters()}
    return select_top(RandomScores(shapes, seed), density)


def _layer(name: str) -> str:
    parts = name.split(".")
    first = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: first + 1])


def _keys(score: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Chunks of a tensor: where each starts, and int32 numbers >= 0 that order as the absolute scores do."""
    flat = score.detach().reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        values = flat[start : start + _CHUNK].to(torch.float32)
        # Without its sign bit, a float's bit pattern orders as its absolute value does.
        yield start, values.view(torch.int32) & 0x7FFFFFFF


def _largest(scores: Mapping[str, Tensor], names: Sequence[str], density: float) -> dict[str, Tensor]:
    """Selects the largest keys of some tensors, the earlier of equal ones first; three passes over them."""
    high, meshes = torch.zeros(1 << 15, dtype=torch.int64), []
    for name in names:
        score = scores[name]
        meshes.append(mesh_of({name: score}))
        for _, keys in _keys(local_part(score)):
            high += torch.bincount(keys >> 16, minlength=len(high)).cpu()
    mesh = meshes[0]
    if any(other != mesh for other in meshes):
        raise ValueError(
            "Some scores are sharded and others are whole, or over other processes; give scores of one kind."
        )
    high = summed(high, mesh)
    if high[_NOT_FINITE:].any():
        bad = first_not_finite({name: scores[name].float() for name in names})
        raise ValueError(f"The scores of parameter {bad!r} are not all finite; compute them again.")
    total = int(high.sum())
    keep = _count(density, total)
    upper, above = _bucket(high, keep)

    low = torch.zeros(1 << 16, dtype=torch.int64)
    for name in names:
        for _, keys in _keys(local_part(scores[name])):
            low += torch.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=len(low)).cpu()
    lower, above_within = _bucket(summed(low, mesh), keep - above)

    threshold = upper << 16 | lower
    ties = keep - above - above_within
    others = None if mesh is None else _equal_elsewhere(scores, names, threshold, mesh)
    masks = {}
    for place, name in enumerate(names):
        score = scores[name]
        local = local_part(score)
        mask = torch.zeros(local.numel(), dtype=torch.bool)
        left = ties if others is None else max(0, ties - others[0][place])
        for start, keys in _keys(local):
            selected = keys > threshold
            equal = (keys == threshold).nonzero().squeeze(1)[:left]
            selected[equal] = True
            left -= len(equal)
            mask[start : start + len(keys)] = selected
        ties = left if others is None else max(0, ties - others[1][place])
        masks[name] = whole(sharded_like(mask.view(local.shape), score))
    return masks


def _equal_elsewhere(
    scores: Mapping[str, Tensor], names: Sequence[str], threshold: int, mesh: DeviceMesh
) -> tuple[list[int], list[int]]:
    """How many entries of each tensor have the threshold's key: in the parts before this process's, and in all parts.

    Parts are rows, in the order of the processes.
    """
    own = [sum(int((keys == threshold).sum()) for _, keys in _keys(local_part(scores[name]))) for name in names]
    everyone = gathered(torch.tensor(own, dtype=torch.int64), mesh)
    return everyone[: mesh.get_local_rank()].sum(0).tolist(), everyone.sum(0).tolist()


def _bucket(histogram: Tensor, rank: int) -> tuple[int, int]:
    """The bucket that holds the key of this rank from the top (1 is the largest), and the count above it."""
    from_top = histogram.flip(0).cumsum(0)
    buckets_above = int((from_top < rank).sum())
    above = int(from_top[buckets_above - 1]) if buckets_above else 0
    return len(histogram) - 1 - buckets_above, above


def _count(density: float, total: int) -> int:
    # As a float, 0.07 * 100 passes 7 by a rounding error; the fraction that was meant does not.
    return min(total, max(1, math.ceil(Fraction(density).limit_denominator(10**9) * total)))
