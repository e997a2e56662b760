"""Whether chosen metrics can be computed, and whether what they give can be used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dareu.metrics._intervals import Estimate, mean_estimate
from dareu.metrics._metric import Metric
from dareu.metrics._offered import OF_SPLIT, AgainstRetrained, OfModel
from dareu.plugins import needed_parameters

SPLITS = ("forget", "retain", "test")

#: What may only be asked for where there is a base model.
NEED_BASE = ("base_nll", "gold_base_nll", "base_model")


def check_metrics(
    metrics: Mapping[str, Metric],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    missing: Mapping[str, str] | None = None,
) -> dict[str, tuple[str, ...]]:
    """What each metric asks for, once it is known that it can be computed.

    Args:
        metrics: By name; at least one.
        options: Of each metric, its options by name.
        missing: What is not there of all that a metric may ask for; with each a sentence that says what to
            give, such as "there is no judge: give one".

    Raises:
        ValueError: There are no metrics, one is no `Metric`, is of an unknown split, asks for something that nobody
            offers or that is missing, or has no such option; or there are options for a metric that is not there.
    """
    options = options or {}
    if not metrics:
        raise ValueError("No metric is chosen: name at least one.")
    if foreign := [name for name in options if name not in metrics]:
        raise ValueError(
            f"There are options of {foreign[0]!r}, but the metrics are {', '.join(metrics)}: choose it too."
        )
    needs = {name: _needs(name, metric, options.get(name, {})) for name, metric in metrics.items()}
    for name, asked in needs.items():
        refuse_missing(name, asked, missing or {})
    return needs


def refuse_missing(name: str, needs: Iterable[str], missing: Mapping[str, str]) -> None:
    """Raises `ValueError` where a metric needs what is missing; see `check_metrics`."""
    if absent := [need for need in needs if need in missing]:
        raise ValueError(f"The metric {name!r} asks for {absent[0]}, but {missing[absent[0]]}.")


def absence(needs: Iterable[str], missing: Mapping[str, str]) -> str | None:
    """What to do about the first need that is missing; None where none is."""
    return next((missing[need] for need in needs if need in missing), None)


def compares(needs: Iterable[str]) -> bool:
    """Whether a metric that asks for these compares the model with the retrained control."""
    return any(need in ("retrained", "retrained_row_values", "common") for need in needs)


def computed(metric: Metric, needs: Iterable[str], offer: object, options: Mapping[str, Any]) -> Any:
    """What a metric gives, once it is given what it needs of an offer; nothing else of that is made."""
    return metric.compute(**{need: getattr(offer, need) for need in needs}, **options)


class Numbers:
    """Numbers by name, as metrics give them one after the other.

    Args:
        known: Numbers that there are already, whose names no metric may give again.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.found: dict[str, float] = {}
        """What was added, finite."""
        self.row_values: dict[str, NDArray[np.float64]] = {}
        """Of what was added as values of rows, those, (n,), NaN where a row has none."""
        self.split_of: dict[str, str] = {}
        """The split of each of these."""
        self.intervals: dict[str, tuple[float, float]] = {}
        """Of the numbers that have one, where 95 of 100 samples of as many rows fall."""
        self.without_rows: list[str] = []
        """What is left out, since no row has a value."""
        self._givers = dict.fromkeys(known, "the measurement has")

    def add(
        self, metric: str, given: Mapping[str, ArrayLike], split: str | None = None, rows: int | None = None
    ) -> None:
        """Adds what a metric gives, values of rows as their mean; what no row has, all being NaN, is left out.

        Args:
            metric: Its name.
            given: What its `compute` returned.
            split: The split that it is of; None where it is of the whole model.
            rows: Rows of the split.

        Raises:
            ValueError: It gives no numbers by name, a name is not in snake_case or taken, or a number is not finite
                or neither a float nor a value of each row.
        """
        what = f"The metric {metric!r}"
        if not isinstance(given, Mapping):
            raise ValueError(f"{what} returned a {type(given).__name__}: it must return a mapping of numbers by name.")
        for name, value in given.items():
            if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]*", name):
                raise ValueError(f"{what} calls a number {name!r}: write the name in snake_case.")
            if name in self._givers:
                raise ValueError(
                    f"{what} gives {name!r}, which {self._givers[name]} already: give each number a name of its own, "
                    "with its split in it."
                )
            self._givers[name] = f"the metric {metric!r} gives"
            estimate = value if isinstance(value, Estimate) else None
            values = _checked(f"{what} gives {name!r}", value if estimate is None else estimate.value, rows)
            if values.ndim and np.isnan(values).all():
                self.without_rows.append(name)
                continue
            if values.ndim:
                assert split is not None
                self.row_values[name], self.split_of[name] = values, split
                estimate = mean_estimate(values)
            self.found[name] = float(values) if estimate is None else estimate.value
            if estimate is not None:
                self.intervals[name] = estimate.low, estimate.high


def _checked(what: str, value: ArrayLike, rows: int | None) -> NDArray[np.float64]:
    """A number, (), or values of rows, (n,), that are finite or NaN for none."""
    try:
        values = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} as a {type(value).__name__}: it must be a number or an array of them.") from None
    if values.ndim and values.shape != (rows,):
        wanted = "one number" if rows is None else f"one number, or one for each of the {rows} rows"
        raise ValueError(f"{what} as an array of shape {values.shape}: it must be {wanted}.")
    unusable = np.isinf(values) if values.ndim else ~np.isfinite(values)
    if unusable.any():
        raise ValueError(f"{what} as {values[unusable][0]}: it must be finite.")
    return values


def _needs(name: str, metric: Metric, options: Mapping[str, Any]) -> tuple[str, ...]:
    what = f"The metric {name!r}"
    if not isinstance(metric, Metric):
        raise ValueError(f"{what} is a {type(metric).__name__}: make it a dareu.metrics.Metric.")
    if unknown := [split for split in metric.splits if split not in SPLITS]:
        raise ValueError(f"{what} is of the split {unknown[0]!r}: the splits are {', '.join(SPLITS)}.")
    if metric.splits:
        return needed_parameters(metric.compute, OF_SPLIT, options, what)
    either = dict.fromkeys((*OfModel._fields, *AgainstRetrained._fields))
    needs = needed_parameters(metric.compute, either, options, what)
    if compares(needs):  # whose model is not at hand when the two are compared
        needed_parameters(metric.compute, AgainstRetrained._fields, options, what)
    return needs
