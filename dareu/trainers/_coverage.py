"""A word where a training would never look at some of the forget rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerState

logger = logging.getLogger(__name__)


class Coverage(TrainerCallback):
    """Warns before the first update of rows that none of the updates will look at.

    Args:
        reached: Takes the number of updates, and says how many of how many forget rows they look at.
    """

    def __init__(self, reached: Callable[[int], tuple[int, int]]) -> None:
        self.reached = reached

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Warns."""
        reached, rows = self.reached(state.max_steps)
        if reached < rows and state.is_world_process_zero:
            logger.warning(
                "%d of %d forget rows are looked at in none of %d updates, so that they may not be forgotten: raise "
                "max_steps or num_train_epochs, or take larger batches.",
                *(rows - reached, rows, state.max_steps),
            )
