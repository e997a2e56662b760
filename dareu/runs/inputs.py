"""What a run reads beside its options, known by its content: it is a part of what the run is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from dareu.models import adapter_base, resolve_model_path
from dareu.plugins import plugin_source
from dareu.values import READ, Reads

#: Options of a plug-in that are paths, of one word too; others have to look like one, for "log" is a word.
_PATHS = ("source", "model", "path", "file", "folder")


def inputs_of(*arguments: Any) -> dict[str, list[Path]]:
    """The files and folders that options name, by the name of the option.

    Which options name any is said by their types: `Annotated[str, READ]`, or `PLUGIN`. Such an option may hold one
    text, a list of texts, or a mapping, whose keys may be plug-ins and whose values options of these, at any depth.
    What is a name to a hub, or of something built in, has no file here. An adapter brings along the base that it names.

    Args:
        arguments: Dataclasses of options.
    """
    found: dict[str, list[Path]] = {}
    for part in arguments:
        hints = get_type_hints(type(part), include_extras=True)
        for field in dataclasses.fields(part):
            for mark in getattr(hints[field.name], "__metadata__", ()):
                if isinstance(mark, Reads):
                    found |= dict(_named(field.name, getattr(part, field.name), mark))
    return found


def _named(name: str, value: Any, mark: Reads) -> Iterator[tuple[str, list[Path]]]:
    """What a value names, each under the option's name and where in it it stands."""
    if isinstance(value, dict):
        for key, item in value.items():
            if source := plugin_source(str(key)):
                yield f"{name}.{key}", source
            yield from _options(f"{name}.{key}", str(key), item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(f"{name}.{item}", item, mark)
    elif isinstance(value, str) and value and value not in mark.words():
        path = Path(resolve_model_path(value))
        if mark.path and path.exists():
            yield name, [path]
            if (path / "adapter_config.json").is_file() and (base := adapter_base(value)) is not None:
                yield from _named(f"{name}.base", base, READ)
        elif mark.plugin and (source := plugin_source(value)):
            yield name, source


def _options(name: str, key: str, value: Any) -> Iterator[tuple[str, list[Path]]]:
    """The paths among a plug-in's options."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _options(f"{name}.{inner}", str(inner), item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _options(f"{name}.{item}", key, item)
    elif isinstance(value, str) and value:
        path = Path(value)
        if key in _PATHS or len(path.parts) > 1 or path.suffix or value != resolve_model_path(value):
            yield from _named(name, value, READ)
