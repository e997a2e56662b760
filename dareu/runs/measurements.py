"""The file of what was measured on one model: `measurement.json`."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from dareu.data.records import text_of
from dareu.files import atomic_file, write_json
from dareu.metrics import Measurement, Metric, against_retrained
from dareu.runs._stored import read_stored

if TYPE_CHECKING:
    from datasets import Dataset


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
    intervals: dict[str, list[float]]
    """Of the numbers that are taken over rows, the two ends of their 95 % interval."""
    left_out: dict[str, str]
    """What could not be computed, with the reasons."""
    vocabulary: str | None
    """The hash of the tokenizer's vocabulary; None of a measurement made before it was kept."""


def write_measurement(path: str | os.PathLike[str], measured: StoredMeasurement) -> None:
    """Writes a measurement, atomically."""
    write_json(path, measured)


def write_rows(path: str | os.PathLike[str], splits: Mapping[str, Dataset], measurement: Measurement) -> None:
    """Writes what was found of every row as a Parquet table, atomically: for pandas, Polars, DuckDB.

    Columns are `split`, `row` (in the split, from 0), `owner`, `prompt`, `completion`, `answer` (the greedy one, null
    where no metric read it), `facts` (a list, where the rows have them), and each number that is a mean over rows, null
    where a row has none.

    Args:
        path: The file.
        splits: The rows that were measured.
        measurement: What `measure` gave of them.
    """
    import pyarrow
    from pyarrow import parquet

    tables = []
    for split, rows in splits.items():
        columns = {"split": [split] * len(rows), "row": range(len(rows)), "owner": list(rows["owner"])}
        columns |= {name: [text_of(text) for text in rows[name]] for name in ("prompt", "completion")}
        if split in measurement.answers:
            columns["answer"] = measurement.answers[split]
        if "facts" in rows.column_names:
            columns["facts"] = pyarrow.array(rows["facts"], pyarrow.list_(pyarrow.string()))
        for name in (name for name, of in measurement.split_of.items() if of == split):
            columns[name] = in_json(measurement.row_values[name])
        tables.append(pyarrow.table(columns))
    with atomic_file(Path(path)) as temporary:
        parquet.write_table(pyarrow.concat_tables(tables, promote_options="default"), temporary)


def in_json(values: NDArray[np.float64]) -> list[float | None]:
    """Values of rows, with None where a row has none."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def read_measurement(path: str | os.PathLike[str]) -> StoredMeasurement:
    """Reads what `write_measurement` wrote.

    Raises:
        ValueError: There is no such file, or it is no measurement.
    """
    found = read_stored(path, "measure", "measurement", "metrics", "measurement.json")
    if not isinstance(found.get("rows"), dict):
        raise ValueError(f"{path} lacks the values of rows, for an older dareu wrote it: delete it and measure again.")
    found = {"prompts": {}, "intervals": {}, "left_out": {}, "vocabulary": None} | found  # which came later
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
        ValueError: As `against_retrained` says; or the two count tokens in different ways, or were asked other rows.
    """
    both = [each["vocabulary"] for each in (measured, control)]
    if None not in both and both[0] != both[1]:
        raise ValueError(
            "The retrained control has another tokenizer than the model, so that nothing which is taken per token can "
            "be compared: retrain from a checkpoint with the model's tokenizer and chat template."
        )
    asked, known = measured["prompts"], control["prompts"]
    if other := [split for split in asked.keys() & known.keys() if asked[split] != known[split]]:
        raise ValueError(
            f"The retrained control was measured on other rows of {min(other)!r} than the model, so that their numbers "
            "do not compare: measure both with the same data, owners to forget, fold and max_rows."
        )
    return against_retrained(
        measured["metrics"],
        control["metrics"],
        metrics,
        options,
        row_values=measured["rows"],
        retrained_row_values=control["rows"],
        common=common,
    )
