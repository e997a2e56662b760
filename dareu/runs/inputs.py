"""What a run reads beside its options, known by its content: it is a part of what the run is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from dareu.models import adapter_base, resolve_model_path
from dareu.plugins import plugin_source
from dareu.values import READ


def inputs_of(*arguments: Any) -> dict[str, list[Path]]:
    """The files and folders that options name, by the name of the option.

    Which options name any is said by their types: `Annotated[str, READ]`. Such an option may hold a path, a model's
    name, or the name of a plug-in, whose source then counts; a list of these; or a mapping, whose keys may be
    plug-ins and whose values, at any depth, paths. What is a name to a hub, or of something built in, has no file
    here. An adapter brings along the base that it names.

    Args:
        arguments: Dataclasses of options.
    """
    found: dict[str, list[Path]] = {}
    for part in arguments:
        hints = get_type_hints(type(part), include_extras=True)
        for field in dataclasses.fields(part):
            if READ in getattr(hints[field.name], "__metadata__", ()):
                found |= dict(_named(field.name, getattr(part, field.name)))
    return found


def _named(name: str, value: Any, *, nested: bool = False) -> Iterator[tuple[str, list[Path]]]:
    """What a value names, each under the option's name and where in it it stands."""
    if isinstance(value, dict):
        for key, item in value.items():
            if source := plugin_source(str(key)):
                yield f"{name}.{key}", source
            yield from _named(f"{name}.{key}", item, nested=True)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(f"{name}.{item}" if isinstance(item, str) else name, item, nested=nested)
    elif isinstance(value, str) and value:
        path = Path(resolve_model_path(value))
        # Among options of a plug-in, "log" is a word even where a file of that name lies about.
        is_word = nested and len(path.parts) < 2 and not path.suffix and path.is_file()
        if path.exists() and not is_word:
            yield name, [path]
            if (path / "adapter_config.json").is_file() and (base := adapter_base(value)) is not None:
                yield from _named(f"{name}.base", base)
        elif source := plugin_source(value):
            yield name, source
