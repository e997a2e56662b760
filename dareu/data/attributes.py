"""Rows by what a column says of them, such as the group a person belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dareu.data._owners import owner_name
from dareu.data.records import check_columns, quoted

if TYPE_CHECKING:
    from datasets import Dataset


def attribute_values(rows: Dataset, column: str) -> list[str]:
    """What a column says of each row, as texts; how they are encoded makes no difference, as with owners.

    Args:
        rows: A dataset.
        column: One of its columns, of texts, numbers or truth values.

    Raises:
        ValueError: The column is missing, holds lists or mappings, or a row has no value in it.
    """
    check_columns(rows, [column])
    values = [owner_name(value) if isinstance(value, str) else value for value in rows[column]]
    for row, value in enumerate(values):
        if value is None or value == "":
            raise ValueError(f"Row {row} of those to forget has no value in column {column!r}: fill it in.")
        if not isinstance(value, str | int | float):
            raise ValueError(
                f"Column {column!r} holds values of type {type(value).__name__}, which part no rows: give a column "
                "with one text or number a row."
            )
    return [str(value) for value in values]


def rows_with(rows: Dataset, column: str, values: Sequence[str]) -> Dataset:
    """The rows whose value in a column is one of some, in their order.

    Raises:
        ValueError: As `attribute_values` says, or no row has one of the values.
    """
    found = attribute_values(rows, column)
    wanted = list(map(owner_name, values))
    missing = [value for value in wanted if value not in set(found)]
    if missing:
        raise ValueError(
            f"No row to forget has {quoted(missing)} in column {column!r}; the values are "
            f"{quoted(dict.fromkeys(found))}."
        )
    return rows.select([row for row, value in enumerate(found) if value in wanted])
