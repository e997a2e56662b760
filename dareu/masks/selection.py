"""Which weights a mask keeps: the highest scores of all, or as many drawn at random."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

_CHUNK = 1 << 22
"""Entries looked at together; bounds the memory that a selection takes beside the masks."""

_Chunks = Callable[[], Iterator[tuple[str, int, Tensor]]]
"""Starts a pass over all entries, each time in the same order: (name, offset in the tensor, keys >= 0)."""


def select_top(scores: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Select the entries of largest absolute score, ranked over all tensors together.

    Exactly ``ceil(density * n)`` of all ``n`` entries are selected, a rounding error of the product aside
    (0.07 of 100 are 7). Among equal scores the earlier entry wins: names in the mapping's order, then the
    position in the tensor. The threshold is found by two histogram passes over the float32 bit pattern,
    without sorting or copying the scores.

    Args:
        scores: Parameter name to scores of any shape, ranked in float32.
        density: Share of the entries to select, in (0, 1].

    Returns:
        Parameter name to a bool tensor of the scores' shape on the CPU, true where selected.

    Raises:
        ValueError: If ``density`` is out of range, there are no scores, or a score is not finite.
    """

    def chunks() -> Iterator[tuple[str, int, Tensor]]:
        for name, score in scores.items():
            flat = score.detach().reshape(-1)
            for start in range(0, len(flat), _CHUNK):
                values = flat[start : start + _CHUNK].to(torch.float32)
                if not torch.isfinite(values).all():
                    raise ValueError(f"The scores of parameter {name!r} are not all finite; compute them again.")
                # Without its sign bit, a float's bit pattern orders as its absolute value does.
                yield name, start, values.view(torch.int32) & 0x7FFFFFFF

    return _largest({name: score.shape for name, score in scores.items()}, chunks, density)


def random_mask(shapes: nn.Module | Mapping[str, Sequence[int]], density: float, seed: int) -> dict[str, Tensor]:
    """Select entries at random, as many as `select_top` does: the control for every mask.

    Each entry gets a random number and the largest are selected, so every set of ``ceil(density * n)``
    entries is equally likely (but for the order of equal numbers at the threshold, one chance in 2**31 each).

    Args:
        shapes: A model, or parameter name to shape. The order of the names counts.
        density: Share of all entries to select, in (0, 1].
        seed: Seed of a generator of its own; no global random state is read or moved.

    Returns:
        Parameter name to a bool tensor of the given shape on the CPU, true where selected.

    Raises:
        ValueError: If ``density`` is out of range or there are no entries.
    """
    if isinstance(shapes, nn.Module):
        shapes = {name: parameter.shape for name, parameter in shapes.named_parameters()}
    sizes = {name: torch.Size(shape) for name, shape in shapes.items()}

    def chunks() -> Iterator[tuple[str, int, Tensor]]:
        # Each pass draws the same numbers anew, so they are never all in memory.
        generator = torch.Generator().manual_seed(seed)
        for name, size in sizes.items():
            for start in range(0, size.numel(), _CHUNK):
                count = min(_CHUNK, size.numel() - start)
                yield name, start, torch.randint(0, 2**31, (count,), generator=generator, dtype=torch.int32)

    return _largest(sizes, chunks, density)


def _largest(shapes: Mapping[str, torch.Size], chunks: _Chunks, density: float) -> dict[str, Tensor]:
    """Select the largest keys, the earlier of equal ones first; three passes over the chunks."""
    keep = _count(density, sum(shape.numel() for shape in shapes.values()))

    high = torch.zeros(1 << 15, dtype=torch.int64)
    for _, _, keys in chunks():
        high += torch.bincount(keys >> 16, minlength=len(high)).cpu()
    upper, above = _bucket(high, keep)

    low = torch.zeros(1 << 16, dtype=torch.int64)
    for _, _, keys in chunks():
        low += torch.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=len(low)).cpu()
    lower, above_within = _bucket(low, keep - above)

    threshold = upper << 16 | lower
    ties = keep - above - above_within
    masks = {name: torch.zeros(shape.numel(), dtype=torch.bool) for name, shape in shapes.items()}
    for name, start, keys in chunks():
        selected = keys > threshold
        equal = (keys == threshold).nonzero().squeeze(1)[:ties]
        selected[equal] = True
        ties -= len(equal)
        masks[name][start : start + len(keys)] = selected
    return {name: mask.view(shapes[name]) for name, mask in masks.items()}


def _bucket(histogram: Tensor, rank: int) -> tuple[int, int]:
    """The bucket that holds the key of this rank from the top (1 is the largest), and the count above it."""
    from_top = histogram.flip(0).cumsum(0)
    buckets_above = int((from_top < rank).sum())
    above = int(from_top[buckets_above - 1]) if buckets_above else 0
    return len(histogram) - 1 - buckets_above, above


def _count(density: float, total: int) -> int:
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; give the share of weights to train, in (0, 1].")
    if not total:
        raise ValueError("There are no weights to select from; give the parameters of the model.")
    # As a float, 0.07 * 100 passes 7 by a rounding error; the fraction that was meant does not.
    return max(1, math.ceil(Fraction(density).limit_denominator(10**9) * total))
