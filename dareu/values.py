"""Option values that YAML gives as lists and mappings, and the command line as text."""

from __future__ import annotations

import json
from typing import Any


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
