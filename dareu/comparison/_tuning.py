"""Trials of settings: as many for every method, chosen by how far each ends from the retrained model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


def settings_grid(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of options that are lists; a value that is itself a list is written as a list in a list.

    >>> settings_grid({"learning_rate": [1, 2], "beta": 0.1})
    [{'learning_rate': 1, 'beta': 0.1}, {'learning_rate': 2, 'beta': 0.1}]
    >>> settings_grid({"lora_target_modules": [["q_proj", "v_proj"]]})
    [{'lora_target_modules': ['q_proj', 'v_proj']}]

    Raises:
        ValueError: A list is empty.
    """
    choices = [value if isinstance(value, list) else [value] for value in options.values()]
    for name, values in zip(options, choices, strict=True):
        if not values:
            raise ValueError(f"{name} is an empty list: give at least one value.")
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*choices)]


def draw_trials(name: str, grid: Sequence[dict[str, Any]], number: int, seed: int) -> list[dict[str, Any]]:
    """So many settings of a grid, without replacement and in the grid's order.

    Args:
        name: The method, for the message.
        grid: Its settings.
        number: Trials a method, ≥ 1.
        seed: Of the draw.

    Raises:
        ValueError: The grid holds fewer.
    """
    if len(grid) < number:
        raise ValueError(
            f"Every method gets {number} trials, but {name} has {len(grid)} settings: give its options lists of "
            f"values that make at least {number} combinations."
        )
    drawn = np.random.default_rng(seed).permutation(len(grid))[:number]
    return [grid[i] for i in sorted(drawn.tolist())]


class Judged(NamedTuple):
    """What a trial is chosen by."""

    gap: float
    """Its retraining gap on the validation rows."""
    utility: float
    """The retained ROUGE there, as a share of the target's."""


def best_setting(trials: Mapping[int, Sequence[Judged]], min_utility: float = 0.0) -> int:
    """The setting of the lowest mean gap over seeds among those that keep enough; of equal ones the first.

    Args:
        trials: Of each setting, what was judged, one a seed. A setting that failed on a seed is passed over where one
            did not.
        min_utility: The mean utility that a setting has to keep. Where none does, the one that keeps most is best.
    """
    most = max(map(len, trials.values()))
    whole = {setting: tuple(map(np.mean, zip(*of, strict=True))) for setting, of in trials.items() if len(of) == most}
    kept = [setting for setting, (_, utility) in whole.items() if utility >= min_utility]
    if not kept:
        return max(whole, key=lambda setting: whole[setting][1])
    return min(kept, key=lambda setting: whole[setting][0])
