"""Numbers that compare a model with the retrained control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dareu.metrics._checks import Numbers, check_metrics, computed
from dareu.metrics._known import METRICS
from dareu.metrics._metric import Metric
from dareu.metrics._offered import AgainstRetrained


def against_retrained(
    numbers: Mapping[str, float],
    retrained: Mapping[str, float],
    metrics: Mapping[str, Metric] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, float]:
    """The numbers of all metrics that compare a model with the retrained control, such as `tow`; they alone.

    Args:
        numbers: What was measured of the model, by name.
        retrained: What was measured of the model that was retrained without the forget owners, on the same rows.
        metrics: By name; those that do not ask for `retrained` have no part in it. Default: `METRICS`.
        options: Of each metric, its options by name.

    Raises:
        ValueError: As `check_metrics` says, or as the metrics do where a number that they read is not there; or one
            gives something else than finite numbers, or a number that there is already.
    """
    chosen, options = METRICS if metrics is None else metrics, options or {}
    added = Numbers(known=numbers)
    for name, needs in check_metrics(chosen, options).items():
        if "retrained" in needs:
            offer = AgainstRetrained({**numbers, **added.found}, retrained)
            added.add(name, computed(chosen[name], needs, offer, options.get(name, {})), None)
    return added.found
