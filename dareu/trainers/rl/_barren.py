"""A word where generation batches in a row have nothing to learn from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from dareu.trainers.rl._rollouts import Rollout

logger = logging.getLogger(__name__)

#: Generation batches in a row that are worth a warning.
_MANY = 10


class BarrenBatches:
    """Counts generation batches in which no sampled completion ended, or no group had spread.

    Args:
        max_completion_length: Tokens of the longest completion.
    """

    def __init__(self, max_completion_length: int) -> None:
        self._longest = max_completion_length
        self._flat = self._cut_off = 0
        self._seen = self._all_flat = self._none_ended = 0

    def reason(self) -> str | None:
        """Why nothing was learnt from any of the batches, in a clause; None: something may have been."""
        if self._seen and self._none_ended == self._seen:
            return (
                f"every completion was cut off at max_completion_length ({self._longest} tokens) and did not count: "
                "raise it, or set mask_truncated_completions=False"
            )
        if self._seen and self._all_flat == self._seen:
            return (
                "no group ever had any spread: give base_model, with which groups are guided, raise temperature, or "
                "see whether the rewards tell the completions apart"
            )
        return None

    def see(self, rollout: Rollout, flat: float, accelerator: Any) -> None:
        """Looks at a generation batch; every process must call this, and the warning comes once.

        Args:
            rollout: The batch.
            flat: Share of the groups without spread, over all processes.
            accelerator: Gathers.
        """
        sampled = torch.tensor([ids is None for ids in rollout.given] or [True], device=rollout.scores.mask.device)
        ended = rollout.scores.mask.any(1)
        alive, any_ended = accelerator.gather(torch.stack([(ended & sampled).any(), ended.any()])[None]).any(0).tolist()
        self._seen += 1
        self._none_ended += not any_ended
        self._all_flat += flat == 1.0
        self._flat = self._flat + 1 if flat == 1.0 else 0
        self._cut_off = 0 if alive else self._cut_off + 1
        if self._cut_off == _MANY:
            logger.warning(
                "Every sampled completion of %d generation batches in a row was cut off at max_completion_length (%d "
                "tokens) and does not count: raise it, or set mask_truncated_completions=False.",
                *(_MANY, self._longest),
            )
        elif self._flat == _MANY:
            logger.warning(
                "No group of %d generation batches in a row had any spread, so that nothing was learnt from them: give "
                "base_model, with which groups are guided, raise temperature, or see whether the rewards tell the "
                "completions apart.",
                _MANY,
            )
