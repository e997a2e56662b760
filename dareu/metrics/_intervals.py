"""How sure a number is: percentile intervals of the bootstrap over rows."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The share of resampled numbers that an interval holds, and how many there are.
_LEVEL = 0.95
_RESAMPLES = 1000


class Estimate(NamedTuple):
    """A number, and where it falls in 95 of 100 samples of as many rows."""

    value: float
    low: float
    high: float


def mean_estimate(values: ArrayLike) -> Estimate:
    """The mean of the rows that have a value, NaN being none; at least one has.

    Args:
        values: (n,).
    """
    there = np.asarray(values, dtype=np.float64)
    there = there[~np.isnan(there)]
    assert there.size
    return _estimate(there.mean(), _counts(len(there), 0) @ there / len(there))


def auc_estimate(positives: ArrayLike, negatives: ArrayLike) -> Estimate:
    """The area under the ROC curve: the share of pairs whose positive is higher, half of those that tie.

    Both sides are resampled.

    Args:
        positives: Scores of those that should be high, (n,).
        negatives: Of the others, (m,).

    Raises:
        ValueError: A side has no scores, or one is NaN.
    """
    high, low = (np.asarray(side, dtype=np.float64) for side in (positives, negatives))
    if not (high.size and low.size):
        raise ValueError("An AUC needs scores of both sides: give rows of each.")
    if np.isnan(high).any() or np.isnan(low).any():
        raise ValueError("An AUC cannot rank a score that is NaN: measure again.")
    above = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    resampled = np.einsum("rm,rm->r", _counts(len(high), 0) @ above, _counts(len(low), 1))
    return _estimate(above.mean(), resampled / above.size)


@lru_cache(maxsize=4)  # the splits' sizes, which every metric has
def _counts(rows: int, stream: int) -> NDArray[np.float64]:
    """(resamples, rows): how often each row was drawn, in as many draws as rows; the same numbers every time."""
    generator = np.random.default_rng((rows, stream))
    return generator.multinomial(rows, np.full(rows, 1 / rows), size=_RESAMPLES).astype(np.float64)


def _estimate(value: np.float64, resampled: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))  # sums round each in its own way
