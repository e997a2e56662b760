"""Option values: what YAML gives as lists and mappings and the command line as text, and which of them are read."""

from __future__ import annotations

import json
from typing import Any, Final

#: Marks an option whose value names what a run reads, `Annotated[str, READ]`; see `dareu.runs.inputs_of`.
READ: Final = "what a run reads"


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
