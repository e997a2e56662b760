"""Trials of settings: as many for every method, chosen by how far each ends from the retrained model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

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


def best_setting(gaps: Mapping[int, Sequence[float]]) -> int:
    """The setting of the lowest mean gap over seeds; of equal ones the first.

    Args:
        gaps: Of each setting, a gap a seed. A setting that failed on a seed is passed over where one did not.
    """
    most = max(len(values) for values in gaps.values())
    return min((s for s in gaps if len(gaps[s]) == most), key=lambda setting: sum(gaps[setting]) / most)
