"""What a benchmark's YAML says of each method, checked before anything is run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dareu.files import write_yaml
from dareu.methods import METHODS
from dareu.options import as_mapping
from dareu.plugins import resolve
from dareu.spunge_options import SpungeArguments
from dareu.trainers import UnlearnConfig
from dareu.trainers.forget_tensors import needed_tensors
from dareu.trainers.unlearning import UnlearningArguments
from dareu.tuning import draw_trials, settings_grid
from dareu.unlearn_options import unlearn_parser

#: What an entry says beside options of its recipe.
_KEYS = ("name", "method", "config", "masks")


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
            grid is too small.
    """
    entries: list[Entry] = []
    for given in methods:
        given = {"method": given} if isinstance(given, str) else given
        if not isinstance(given, dict) or "method" not in given:
            raise ValueError(f"An entry of methods is {given!r}: give its method, one of {', '.join(METHODS)}.")
        method, name = str(given["method"]), str(given.get("name", given["method"]))
        resolve(method, METHODS)
        if name in [entry.name for entry in entries] or name in ("target", "retrained"):
            raise ValueError(f"Two entries are called {name!r}: give each a name of its own.")
        config = configs / given.get("config", f"{method}.yaml")
        if not config.is_file():
            raise ValueError(f"The entry {name!r} has no config {config}: name a file of {configs} as config.")
        under = list(given.get("masks", ["dense"]))
        if unknown := [mask for mask in under if mask != "dense" and mask not in masks]:
            raise ValueError(f"The entry {name!r} names the mask {unknown[0]!r}: give it under masks, or 'dense'.")
        grid = settings_grid({key: value for key, value in given.items() if key not in _KEYS})
        settings = draw_trials(name, grid, trials, seed) if trials else grid
        recipe = "spunge" if "split_column" in given else "unlearn"
        entries.append(Entry(name, method, recipe, config, under, settings))
    return entries


def told(entry: Entry, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that tell one of the entry's grid from another."""
    return {key: value for key, value in settings.items() if any(other[key] != value for other in entry.settings)}


def check_options(entry: Entry, options: dict[str, Any]) -> None:
    """Refuses what the entry's recipe would refuse of its options.

    Raises:
        ValueError: What the recipe would say.
    """
    method, environment = resolve(entry.method, METHODS), dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        write_yaml(file, options)
        try:
            more = [SpungeArguments] if entry.recipe == "spunge" else []
            parsed = unlearn_parser(method, *more).parse_args_and_config(["--config", str(file)])
            training = next(part for part in parsed if isinstance(part, UnlearningArguments))
            training.check()
            if isinstance(training, UnlearnConfig):
                kwargs = as_mapping("loss_kwargs", training.loss_kwargs)
                needed_tensors(method.loss, kwargs, method.trainer.tensors)
        except ValueError as error:
            raise ValueError(f"The entry {entry.name!r}: {error}") from error
        finally:  # options of training speak to accelerate through the environment
            os.environ.clear()
            os.environ.update(environment)
