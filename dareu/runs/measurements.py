"""The file of what was measured on one model: `measurement.json`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypedDict, cast

from dareu.files import write_json


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
    return cast(StoredMeasurement, found)
