"""SPUNGE (Kadhe et al. 2024, arXiv 2406.11780): split what is to be forgotten, unlearn each part, merge.

1. Split the rows to forget by an attribute: `split_forget`.
2. Unlearn each part alone, from the same model, by any method.
3. Merge the unlearned models: `dareu.deltas.merging.merge_models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from dareu.data import owner_name
from dareu.data.attributes import attribute_values
from dareu.data.records import quoted
from dareu.files import file_name

if TYPE_CHECKING:
    from datasets import Dataset


class Part(NamedTuple):
    """Rows that are unlearned together."""

    name: str
    """The value that they share, or the group of their values."""
    folder: str
    """The name as one of a file, see `file_name`."""
    values: list[str]
    """What they have in the column."""
    rows: Dataset


def split_forget(
    forget: Dataset, column: str, groups: Mapping[str, str] | None = None, *, minimum: int = 1
) -> list[Part]:
    """Splits the rows of a forget request by what a column says.

    Args:
        forget: The rows of all owners to forget.
        column: The column to split by, with one text or number a row; numbers are known by their text.
        groups: Value to the name of its part; default: every value is a part of its own.
        minimum: Rows that each part must have. Smaller ones are not joined with others behind the user's back:
            `groups` says which go together.

    Returns:
        The parts, two at least, in the order of their first rows; every row is in one of them, in its order.

    Raises:
        ValueError: The column is missing, holds lists, lacks a value, or has but one; `groups` lacks a value or names
            a group that no row belongs to; or a part is too small.
    """
    found = attribute_values(forget, column)
    if groups is None:
        groups = {value: value for value in found}
    named = [(owner_name(value), name) for value, name in groups.items()]
    groups = dict(named)
    if twice := [value for value, name in named if groups[value] != name]:
        raise ValueError(f"The map of column {column!r} names several parts for {quoted(twice)}: name one.")
    lacking = [value for value in dict.fromkeys(found) if value not in groups]
    if lacking:
        raise ValueError(
            f"The map of column {column!r} names no part for {quoted(lacking)}: add them; it knows {quoted(groups)}."
        )
    places: dict[str, list[int]] = {}
    for row, value in enumerate(found):
        places.setdefault(groups[value], []).append(row)
    empty = [name for name in dict.fromkeys(groups.values()) if name not in places]
    if empty:
        raise ValueError(
            f"No row to forget belongs to the part {quoted(empty)} of column {column!r}, whose values are "
            f"{quoted(dict.fromkeys(found))}: correct the map."
        )
    if len(places) < 2:
        raise ValueError(
            f"All rows to forget belong to the part {quoted(places)} of column {column!r}, so there is nothing to "
            "split: choose another column or map, or run unlearn."
        )
    parts: list[Part] = []
    for name, rows in places.items():
        if len(rows) < minimum:
            raise ValueError(
                f"Part {name!r} of column {column!r} has {len(rows)} rows, and at least {minimum} are asked for: join "
                "it with another by a map, or ask for fewer."
            )
        values = [value for value in dict.fromkeys(found) if groups[value] == name]
        parts.append(Part(name, file_name(name), values, forget.select(rows)))
    return parts
