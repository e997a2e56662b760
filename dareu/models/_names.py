"""Names of models, and what to say where nothing can be loaded by one."""

from __future__ import annotations

from importlib import resources

#: The name under which the shipped base model of the fictional world is asked for.
BASE_MODEL = "fictional-base"


def resolve_model_path(name_or_path: str) -> str:
    """The path of the shipped base model for `"fictional-base"`; any other name or path as it is."""
    if name_or_path != BASE_MODEL:
        return name_or_path
    return str(resources.files("dareu") / "base_model")


def first_line(error: Exception) -> str:
    """An error's message up to its first line break; of a heading, with the line below it, and of a key, what it is."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, KeyError):
        return f"unknown or missing: {lines[0]}"
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
