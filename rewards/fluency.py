"""A reward that keeps generations fluent in the eyes of a model that never saw the forget data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: So many answers tell well enough what is fluent.
_MOST_ROWS = 256


class Rows(Protocol):
    """A `datasets.Dataset`, or a mapping of columns."""

    def __getitem__(self, column: str, /) -> Sequence[Any]:
        """A column's values, row by row."""


class FluencyReward:
    """Penalises completions that a judge finds less likely than its `bound`; all others score 0.

    The score is -clip((NLL - bound) / width, 0, 1). It is one-sided: a reward for being ever more likely would shrink
    every answer to the commonest one. The judge should be the checkpoint that the target was fine-tuned *from*; under
    the target itself the memorised text is the most fluent of all. With dareu's own likelihoods:

        def nll(prompts, completions):
            return answer_nll(base_model, tokenizer, prompts, completions, truncate=True).mean

        reward = FluencyReward.calibrate(nll, retained)

    Args:
        nll: `nll(prompts, completions)` gives the mean NLL of each completion in nats a token, shape (n,).
        bound: NLL up to which a completion costs nothing. See `calibrate`.
        width: Nats a token above the bound at which the penalty is full.
        name: The name of the reward in logs.

    Raises:
        ValueError: `bound` is not finite or `width` is not positive.
    """

    def __init__(
        self,
        nll: Callable[[list[Any], list[Any]], ArrayLike],
        bound: float,
        *,
        width: float = 1.0,
        name: str = "fluency",
    ) -> None:
        if not np.isfinite(bound) or not width > 0:
            raise ValueError(f"FluencyReward needs a finite bound and a positive width, not {bound} and {width}.")
        self.nll = nll
        self.bound = float(bound)
        self.width = float(width)
        self.__name__ = name

    @classmethod
    def calibrate(
        cls,
        nll: Callable[[list[Any], list[Any]], ArrayLike],
        retained: Rows,
        *,
        quantile: float = 0.9,
        width: float = 1.0,
        name: str = "fluency",
    ) -> FluencyReward:
        """Takes the bound from texts that are known to be fluent, 256 rows at most.

        Args:
            nll: See the class.
            retained: Rows with a `prompt` and a `completion`, such as the retained ones.
            quantile: Share of those texts that shall cost nothing, in [0, 1].
            width: See the class.
            name: See the class.

        Raises:
            ValueError: There are no rows.
        """
        if not len(retained["prompt"]):
            raise ValueError("There are no retained rows to take the bound from: give some, or a bound.")
        prompts, completions = list(retained["prompt"][:_MOST_ROWS]), list(retained["completion"][:_MOST_ROWS])
        fluent = np.asarray(nll(prompts, completions), dtype=np.float64)
        return cls(nll, float(np.quantile(fluent, quantile)), width=width, name=name)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """One score in [-1, 0] a completion; `log_metric` (TRL's) is told the mean NLL as `fluency_nll`."""
        nll = np.asarray(self.nll(list(prompts), list(completions)), dtype=np.float64)
        if (log_metric := columns.get("log_metric")) is not None:
            log_metric("fluency_nll", float(nll.mean()))
        scores: list[float] = (-np.clip((nll - self.bound) / self.width, 0.0, 1.0)).tolist()
        return scores
