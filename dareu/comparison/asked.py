"""What a comparison is asked for, and the roles that its models and judges have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

JUDGES = ("classifier", "validation_judge", "test_judge")

#: What the runs share, and the options that name each where a config does.
ROLES = ("base", "target", "retrained", *JUDGES)

#: The dataclasses that the recipe of a name makes of options; raises `ValueError` for what it would refuse.
Check = Callable[[str, Mapping[str, Any]], list[Any]]


class Asked(Protocol):
    """What is asked of a comparison beside its data and entries; the options of `dareu benchmark` are one such."""

    given: dict[str, Any]
    """Folders or hub ids of what is there already, by its role."""
    masks: dict[str, Any]
    """For the name of each mask, options of `dareu attribute_weights`."""
    seeds: list[int]
    """One at least."""
    tune: int
    """Trials a method; 0: each setting is a row of its own."""
    num_controls: int
    """Retrained models a seed; the others than the first are rows of their own."""
    vary_world: bool
    """Whether the fictional world's seed is that of the runs."""
    launch_with: str | None
    """The accelerate config that unlearning is launched with."""
