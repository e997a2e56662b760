"""What methods ask of their options, and the mean that is the same however records are batched."""

from __future__ import annotations

import math

from torch import Tensor


def check_positive(name: str, value: float) -> None:
    """Raises `ValueError` unless an option is a finite number > 0."""
    if not _is_number(value) or not value > 0:
        raise ValueError(f"{name} is {value!r}: give a number > 0.")


def check_not_negative(name: str, value: float) -> None:
    """Raises `ValueError` unless an option is a finite number ≥ 0."""
    if not _is_number(value) or not value >= 0:
        raise ValueError(f"{name} is {value!r}: give a number ≥ 0.")


def check_number(name: str, value: float) -> None:
    """Raises `ValueError` unless an option is a finite number."""
    if not _is_number(value):
        raise ValueError(f"{name} is {value!r}: give a finite number.")


def mean_over_records(values: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
    """The mean over records of each record's mean over tokens.

    Args:
        values: (n,) one value a token.
        rows: int64 (n,), the record of each token.
        lengths: (B,) tokens of each record.

    Returns:
        A scalar.
    """
    return (values.new_zeros(len(lengths)).index_add(0, rows, values) / lengths).mean()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
