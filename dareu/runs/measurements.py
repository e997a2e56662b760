"""The file of what was measured on one model: `measurement.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from dareu.files import write_json
from dareu.metrics import Metric, against_retrained


class StoredMeasurement(TypedDict):
    """What a `measurement.json` holds."""

    key: str
    """The hash of everything that went in."""
    metrics: dict[str, float]
    """Finite numbers by name."""
    answers: dict[str, list[str]]
    """The greedy answers to each split's rows, where a metric read them."""
    prompts: dict[str, list[str]]
    """What was asked, row by row."""
    rows: dict[str, list[float | None]]
    """For each number that is a mean over rows, their values; None where a row has none."""


def write_measurement(path: str | os.PathLike[str], measured: StoredMeasurement) -> None:
    """Writes a measurement, atomically."""
    write_json(path, measured)


def read_measurement(path: str | os.PathLike[str]) -> StoredMeasurement:
    """Reads what `write_measurement` wrote.

    Raises:
        ValueError: There is no such file, or it is no measurement.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: measure that model first, with `dareu measure`.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no whole measurement ({error}): delete it and measure again.") from error
    if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
        raise ValueError(f"{path} is no measurement of `dareu measure`: name the measurement.json of a model.")
    if not isinstance(found.get("rows"), dict):
        raise ValueError(f"{path} lacks the values of rows, for an older dareu wrote it: delete it and measure again.")
    return cast(StoredMeasurement, found)


def common_numbers(measured: Iterable[StoredMeasurement]) -> frozenset[str]:
    """The names of the numbers that all of them have."""
    names = [frozenset(each["metrics"]) for each in measured]
    return frozenset.intersection(*names) if names else frozenset()


def beside_control(
    measured: StoredMeasurement,
    control: StoredMeasurement,
    metrics: Mapping[str, Metric] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    common: Collection[str] | None = None,
) -> dict[str, float]:
    """What compares a model with the retrained control, from what was kept of both.

    Args:
        measured: Of the model.
        control: Of the control, on the same rows.
        metrics: See `dareu.metrics.against_retrained`, as of the others.
        options: Of each metric.
        common: Names of the numbers that every model of a table has; default: that both have.

    Raises:
        ValueError: As `against_retrained` says.
    """
    return against_retrained(
        measured["metrics"],
        control["metrics"],
        metrics,
        options,
        row_values=measured["rows"],
        retrained_row_values=control["rows"],
        common=common,
    )
