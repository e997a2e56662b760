"""A word where generation batches in a row have nothing to learn from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from dareu.trainers.rl._rollouts import Rollout
    from dareu.trainers.rl._scoring import TokenScores

logger = logging.getLogger(__name__)

_COUNTS = ("_seen", "_none_ended", "_all_flat", "_all_equal", "_flat", "_cut_off")

#: Generation batches in a row that are worth a warning.
_MANY = 10


class BarrenBatches:
    """Counts generation batches in which no sampled completion ended, no group had spread, or all rewards were equal.

    Args:
        max_completion_length: Tokens of the longest completion.
        compares: Whether completions are compared with one another, so that equal ones teach nothing.
    """

    def __init__(self, max_completion_length: int, *, compares: bool = True) -> None:
        self._longest, self._compares = max_completion_length, compares
        self._flat = self._cut_off = 0
        self._seen = self._all_flat = self._none_ended = self._all_equal = 0
        self._whole = True

    def state(self) -> dict[str, int]:
        """The counts, for a checkpoint."""
        return {name: getattr(self, name) for name in _COUNTS}

    def go_on(self, state: dict[str, int] | None) -> None:
        """Takes up the counts of a checkpoint; None: it has none, and nothing can be said of the whole training."""
        self._whole = state is not None
        vars(self).update(state or {})

    def reason(self) -> str | None:
        """Why nothing was learnt from any of the batches, in a clause; None: something may have been."""
        if not (self._seen and self._whole):
            return None
        if self._none_ended == self._seen:
            return (
                f"every completion was cut off at max_completion_length ({self._longest} tokens) and did not count: "
                "raise it, or set mask_truncated_completions=False"
            )
        if not self._compares:
            return None
        if self._all_flat == self._seen:
            return (
                "no group ever had any spread: give base_model, with which groups are guided, raise temperature, or "
                "see whether the rewards tell the completions apart"
            )
        if self._all_equal == self._seen:
            return "every completion had the same reward: see whether the rewards tell completions apart"
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
        self._all_equal += not _differ(rollout.scores, accelerator)
        self._all_flat += flat == 1.0
        self._flat = self._flat + 1 if self._compares and flat == 1.0 else 0
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


def _differ(scores: TokenScores, accelerator: Any) -> bool:
    """Whether a token has a reward of its own, or two completions of any process have different ones."""
    dense = scores.rewards.abs().amax()
    highest = scores.terminal.masked_fill(~scores.scored, -torch.inf).amax()
    lowest = scores.terminal.masked_fill(~scores.scored, torch.inf).amin()
    of_all = accelerator.gather(torch.stack([dense, highest, -lowest])[None]).amax(0)
    return bool(of_all[0] > 0) or bool(of_all[1] + of_all[2] > 1e-6)
