"""Tug of war: how close an unlearned model comes to the retrained one on all sides at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dareu.metrics._metric import Metric


def tow(
    model: Mapping[str, float],
    retrained: Mapping[str, float],
    splits: Sequence[str] = ("forget", "retain", "test"),
) -> float:
    """ToW = Π over splits of (1 - |m_model - m_retrained|), m = ROUGE-L recall.

    Args:
        model: Metrics of the model, with `<split>_rouge` in [0, 1] for each split.
        retrained: The same of the model retrained without the forget owners.
        splits: The splits to multiply over; `("forget", "retain")` gives ToW*.

    Returns:
        A number in [0, 1]; the retrained model itself has 1.

    Raises:
        ValueError: A metric is missing or not within [0, 1], or there are no splits.
    """
    if not splits:
        raise ValueError("ToW needs at least one split: give some of 'forget', 'retain', 'test'.")
    return math.prod(1 - abs(_rouge(model, split) - _rouge(retrained, split)) for split in splits)


def _rouge(metrics: Mapping[str, float], split: str) -> float:
    name = f"{split}_rouge"
    if name not in metrics:
        raise ValueError(
            f"ToW needs the metric {name!r}, but there are only {', '.join(sorted(metrics)) or 'none'}: "
            "measure both models on the same splits."
        )
    value = metrics[name]
    if not 0 <= value <= 1:
        raise ValueError(f"ToW needs {name!r} within [0, 1], but it is {value}: give ROUGE-L recalls.")
    return value


def _numbers(numbers: Mapping[str, float], retrained: Mapping[str, float]) -> dict[str, float]:
    star = {"tow_star": tow(numbers, retrained, ("forget", "retain"))}
    return ({"tow": tow(numbers, retrained)} if "test_rouge" in numbers else {}) | star


TOW = Metric(_numbers, splits=(), columns=("tow",), reads=("rouge",))
