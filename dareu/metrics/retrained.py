"""Numbers that compare a model with the retrained control."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dareu.metrics._checks import Numbers, check_metrics, compares, computed
from dareu.metrics._known import METRICS
from dareu.metrics._metric import Metric
from dareu.metrics._offered import AgainstRetrained

#: Values of n rows; None or NaN where a row has none.
RowValues = Sequence[float | None] | NDArray[np.float64]


def against_retrained(
    numbers: Mapping[str, float],
    retrained: Mapping[str, float],
    metrics: Mapping[str, Metric] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    row_values: Mapping[str, RowValues] | None = None,
    retrained_row_values: Mapping[str, RowValues] | None = None,
    common: Collection[str] | None = None,
) -> dict[str, float]:
    """The numbers of all metrics that compare a model with the retrained control, such as `tow`; they alone.

    Args:
        numbers: What was measured of the model, by name.
        retrained: What was measured of the model that was retrained without the forget owners, on the same rows.
        metrics: By name; those that do not compare with the control have no part in it. Default: `METRICS`.
        options: Of each metric, its options by name.
        row_values: Of the model's numbers that are means over rows, the values of these; without them there is no
            `gibberish`.
        retrained_row_values: The same of the retrained model.
        common: Names of the numbers that every model of a table has, which `retraining_gap` compares; default: those
            that both have.

    Raises:
        ValueError: As `check_metrics` says, or as the metrics do where a number that they read is not there; or one
            gives something else than finite numbers, or a number that there is already.
    """
    chosen, options = METRICS if metrics is None else metrics, options or {}
    own, control = _arrays(row_values), _arrays(retrained_row_values)
    both = numbers.keys() & retrained.keys()
    shared = frozenset(both if common is None else both & set(common))
    added = Numbers(known=numbers)
    for name, needs in check_metrics(chosen, options).items():
        if compares(needs):
            offer = AgainstRetrained({**numbers, **added.found}, retrained, own, control, shared)
            added.add(name, computed(chosen[name], needs, offer, options.get(name, {})))
    return added.found


def _arrays(values: Mapping[str, RowValues] | None) -> dict[str, NDArray[np.float64]]:
    """Values of rows as arrays, where a file has null for none."""
    return {name: np.array(row_values, dtype=np.float64) for name, row_values in (values or {}).items()}
