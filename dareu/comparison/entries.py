"""What a benchmark's YAML says of each method, checked before anything is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dareu.comparison._tuning import draw_trials, settings_grid
from dareu.data.parts import DataArguments
from dareu.methods import METHODS, find_method
from dareu.plugins import plugin_name
from dareu.values import as_list

#: What an entry says beside options of its recipe.
_KEYS = ("name", "method", "config", "masks")

#: What is the same for all entries, or follows from seed and mask.
_RESERVED = (
    *(option.name for option in dataclasses.fields(DataArguments)),
    *("seed", "mask", "output_dir", "model_name_or_path", "base_model", "validation_judge", "test_judge"),
)


class Entry(NamedTuple):
    """One method of the comparison."""

    name: str
    method: str
    recipe: str
    """`unlearn`, or `spunge` where a column splits the request."""
    config: Path
    masks: list[str]
    settings: list[dict[str, Any]]
    """Options over those of the config; several where there is a grid."""


def read_entries(
    methods: Sequence[Any], masks: Collection[str], configs: Path, *, trials: int = 0, seed: int = 0
) -> list[Entry]:
    """The methods to compare.

    Args:
        methods: Names of methods, or mappings with `method`, perhaps `name`, `config` and `masks`, and options of
            `dareu unlearn` (of `dareu spunge`, with `split_column`), where a list makes a grid.
        masks: The names of the masks that there are.
        configs: The folder of the methods' YAMLs.
        trials: Settings of each method to draw from its grid; 0: all of them.
        seed: Of the draw.

    Raises:
        ValueError: An entry names no method, a mask or YAML that is not there, or the name of another entry; or its
            grid is too small; or no entry names a mask that there is.
    """
    entries: list[Entry] = []
    for given in methods:
        given = {"method": given} if isinstance(given, str) else given
        if not isinstance(given, dict) or "method" not in given:
            raise ValueError(f"An entry of methods is {given!r}: give its method, one of {', '.join(METHODS)}.")
        method, name = str(given["method"]), str(given.get("name", plugin_name(str(given["method"]))))
        find_method(method)
        if name in [entry.name for entry in entries]:
            raise ValueError(f"Two entries are called {name!r}: give each a name of its own.")
        if name == "target" or name.startswith("retrained"):
            raise ValueError(f"An entry is called {name!r}, as what it is compared with: give it another name.")
        config = configs / str(given.get("config", f"{plugin_name(method)}.yaml"))
        if not config.is_file():
            raise ValueError(f"The entry {name!r} has no config {config}: name a file of {configs} as config.")
        under = as_list(given.get("masks", ["dense"])) or []
        if not (isinstance(under, list) and under and all(isinstance(mask, str) for mask in under)):
            raise ValueError(f"The entry {name!r} has masks {under!r}: give a list of names, at least one.")
        if len(set(under)) < len(under):
            raise ValueError(f"The entry {name!r} has masks {under}: give each once.")
        if own := [option for option in given if option in _RESERVED]:
            raise ValueError(f"The entry {name!r} sets {own[0]}, which the benchmark itself sets: leave it out.")
        if unknown := [mask for mask in under if mask != "dense" and mask not in masks]:
            raise ValueError(f"The entry {name!r} names the mask {unknown[0]!r}: give it under masks, or 'dense'.")
        grid = settings_grid({key: value for key, value in given.items() if key not in _KEYS})
        if any(grid.count(settings) > 1 for settings in grid):
            raise ValueError(f"The entry {name!r} has the same settings twice: give each value once.")
        settings = draw_trials(name, grid, trials, seed) if trials else grid
        recipe = "spunge" if "split_column" in given else "unlearn"
        entries.append(Entry(name, method, recipe, config, under, settings))
    if unused := set(masks).difference(*(entry.masks for entry in entries)):
        raise ValueError(f"No entry has the mask {min(unused)!r} among its masks: name it there, or leave it out.")
    return entries


def told(entry: Entry, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that tell one of the entry's grid from another."""
    return {key: value for key, value in settings.items() if any(other[key] != value for other in entry.settings)}
