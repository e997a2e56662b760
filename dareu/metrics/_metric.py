"""What a metric is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from numpy.typing import ArrayLike


class Metric(NamedTuple):
    """How a family of numbers is computed."""

    compute: Callable[..., Mapping[str, ArrayLike]]
    """Gives numbers by their full name in snake_case, such as `forget_rouge`: each a float, or a value a row, (n,),
    NaN where a row has none, of which the mean over the others is taken, or an `Estimate`, which brings its own
    interval. Names by its parameters without a default what it needs (`dareu.metrics.OfSplit`, `OfModel`,
    `AgainstRetrained`); those with one are its options."""
    splits: tuple[str, ...] = ("forget",)
    """It is computed once on each of these, of "forget", "retain" and "test"; none: once, of the whole model."""
    columns: tuple[str, ...] = ()
    """Which of its numbers tables show, in this order."""
    reads: tuple[str, ...] = ()
    """Built-in metrics whose numbers it reads: who chooses it chooses these too."""
    costly: bool = False
    """Whether it takes so long that it is computed only where it is named."""
