"""Options of audits as YAML and the command line give them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    """A number strictly between two others; text is read, as YAML leaves 1e-4 one.

    Raises:
        ValueError: It is none.
    """
    try:
        read = float(value)
    except (TypeError, ValueError):
        read = math.nan
    if isinstance(value, bool) or not low < read < high:
        between = f"above {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} holds {value!r}: give numbers {between}.")
    return read


def numbers(name: str, values: Any, low: float = 0.0, high: float = math.inf) -> list[float]:
    """Such numbers, one standing for a list of one.

    Raises:
        ValueError: One is none, or there are none.
    """
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if not listed:
        raise ValueError(f"{name} is an empty list: give at least one number.")
    return [number(name, value, low, high) for value in listed]


def whole_numbers(name: str, values: Any) -> list[int]:
    """Whole numbers of at least 1, as `numbers`.

    Raises:
        ValueError: As `numbers` says.
    """
    read = numbers(name, values)
    if fractions := [value for value in read if value != int(value)]:
        raise ValueError(f"{name} holds {fractions[0]:g}: give whole numbers of at least 1.")
    return [int(value) for value in read]
