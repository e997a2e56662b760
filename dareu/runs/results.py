"""The rows of a run's `results.json`: one model each, and what was measured on it."""

import json
import math
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from dareu.files import write_json


class ResultRow(TypedDict):
    """One row of `results.json`: one model, and what was measured on it."""

    method: str
    mask: str | None
    """The kind of weight mask; None where there was none."""
    seed: int
    model: str
    """The folder of the model."""
    metrics: dict[str, float]
    """Finite numbers by name, snake_case, split first (`forget_rouge`)."""
    seconds: float | None
    """The unlearning itself with rollouts and scoring; None where nothing was unlearned."""
    peak_memory_bytes: int | None
    """See `dareu.runs.memory.PeakMemory`; None where nothing was unlearned or the system does not tell."""
    part: NotRequired[str]
    stage: NotRequired[str]
    trial: NotRequired[int]
    measured: NotRequired[list[str]]
    """The names of the numbers that `dareu measure` added, which go where it measures otherwise."""
    nothing_learnt: NotRequired[str]
    """Why the training cannot have learnt anything, in a clause; absent where it may have."""


def write_results(path: str | os.PathLike[str], rows: Sequence[ResultRow]) -> None:
    """Writes the rows as JSON, atomically.

    Raises:
        ValueError: If a row lacks a field, has an unknown one, or a value is of the wrong type or not finite;
            nothing is written then.
    """
    for number, row in enumerate(rows):
        _check_row(number, row)
    write_json(path, rows)


def read_results(path: str | os.PathLike[str]) -> list[ResultRow]:
    """The rows that `write_results` wrote."""
    return cast(list[ResultRow], json.loads(Path(path).read_text(encoding="utf-8")))


def _check_row(number: int, row: Mapping[str, Any]) -> None:
    where = f"Row {number} of the results"
    required, optional = ResultRow.__required_keys__, ResultRow.__optional_keys__
    if missing := sorted(required - row.keys()):
        raise ValueError(f"{where} lacks {', '.join(missing)}; add what is missing.")
    if unknown := sorted(row.keys() - required - optional):
        raise ValueError(f"{where} has the unknown {', '.join(unknown)}; numbers belong in its metrics.")
    kinds = {"seed": "an integer", "trial": "an integer", "peak_memory_bytes": "an integer"}
    kinds |= {"seconds": "a finite number", "metrics": "a mapping", "measured": "a list"}
    for field, value in row.items():
        kind = kinds.get(field, "a string")
        optional_value = field in ("mask", "seconds", "peak_memory_bytes")
        if not (_is(kind, value) or (value is None and optional_value)):
            raise ValueError(f"{where} has {field}={value!r}; give {kind}{' or None' * optional_value}.")
    for name, value in row["metrics"].items():
        if not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise ValueError(f"{where} names a metric {name!r}; write the name in snake_case.")
        if not _is("a finite number", value):
            raise ValueError(f"{where} has {name}={value!r}; a metric must be a finite number.")


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "a string":
            return isinstance(value, str)
        case "a mapping":
            return isinstance(value, Mapping)
        case "a list":
            return isinstance(value, list)
        case "an integer":
            return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
