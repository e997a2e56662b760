"""Option values: what YAML gives as lists and mappings and the command line as text, and which of them are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reads:
    """Marks an option whose value names what a run reads, `Annotated[str, READ]`; see `dareu.runs.inputs_of`."""

    path: bool = True
    """Whether it may be a path, or the name of a model."""
    plugin: bool = False
    """Whether it may be a plug-in as `pkg.mod:Name` or `path/to/file.py:Name`, whose source is read."""
    words: Callable[[], Collection[str]] = tuple
    """Gives the values that are words, whatever files of that name there are."""


#: A path, or the name of a model.
READ = Reads()

#: A plug-in, by a built-in name or one of the other two spellings; a mapping's keys are plug-ins, its values options.
PLUGIN = Reads(path=False, plugin=True)


def as_mapping(name: str, value: dict[str, Any] | str | None) -> dict[str, Any]:
    """A mapping as it is, a JSON object parsed, nothing as an empty mapping.

    Raises:
        ValueError: The text is no JSON object.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            pass
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r}: give a mapping in YAML, or a JSON object on the command line.")
    return value or {}


def as_list(value: list[str] | str | None) -> list[str] | None:
    """A list as it is, a single text as a list of one, None as it is."""
    return [value] if isinstance(value, str) else value


def as_names(name: str, value: Any) -> list[str] | None:
    """A list of names, where a whole number stands for its text and a single name for a list of one; None as it is.

    Raises:
        ValueError: One is neither text nor a whole number, as YAML makes of words like no, of dates and of fractions.
    """
    if value is None:
        return None
    names = value if isinstance(value, list) else [value]
    for item in names:
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise ValueError(
                f"{name} holds {item!r}, which is what YAML makes of some names without quotes (no, on, null, dates, "
                "numbers with a dot): put the name in quotes."
            )
    return [str(item) for item in names]
