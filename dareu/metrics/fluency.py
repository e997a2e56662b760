"""How fluent a model is: what the base model thinks of its answers, and whether they go in circles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dareu.metrics._metric import Metric
from dareu.metrics.likelihood import AnswerNLL
from dareu.metrics.variety import repetition

#: The number whose values of rows tell of broken language.
BASE_NLL = "forget_base_nll"
#: The number whose values of rows tell of answers that go in circles.
_REPETITION = "forget_repetition"

#: Where the least likely answers of who speaks properly begin.
_QUANTILE = 0.95
#: An answer that says no more than this share of its runs of words again does not go in circles.
_SAID_AGAIN = 0.2


def gibberish(
    nll: ArrayLike,
    proper_nll: ArrayLike,
    repeated: ArrayLike | None = None,
    proper_repeated: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Which answers are broken language: less likely to the base model than nearly all proper ones, or in circles.

    Less likely is above the 95th percentile of the proper ones, so that of these themselves one in twenty counts. A
    sentence said again and again is most likely of all, and so counts by another rule: more than a fifth of its runs of
    four words stood in it before, and more than in nearly all proper answers.

    Args:
        nll: NLL per token of n answers under the base model.
        proper_nll: The same of answers that are whole sentences, those of the retrained model or the gold ones.
        repeated: `dareu.metrics.variety.repetition` of the n answers; None: nobody looks for circles.
        proper_repeated: The same of the proper ones.

    Returns:
        Flags, (n,).

    Raises:
        ValueError: There are no proper answers, or an NLL is not finite.
    """
    values, proper = np.asarray(nll, dtype=np.float64), np.asarray(proper_nll, dtype=np.float64)
    if not proper.size or not (np.isfinite(values).all() and np.isfinite(proper).all()):
        raise ValueError("Gibberish needs finite NLLs of all answers, and at least one proper answer: measure again.")
    flags = values > np.quantile(proper, _QUANTILE)
    if repeated is not None and proper_repeated is not None:
        flags |= np.asarray(repeated) > max(_SAID_AGAIN, np.quantile(np.asarray(proper_repeated), _QUANTILE))
    return np.asarray(flags)


def gibberish_of_rows(
    row_values: Mapping[str, NDArray[np.float64]], proper: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.bool_]:
    """`gibberish` of a model's answers beside the retrained model's, of what was measured of both row by row.

    Args:
        row_values: Of the model: `forget_base_nll`, and `forget_repetition` where circles are looked for.
        proper: Of the retrained model.
    """
    circles = _REPETITION in row_values and _REPETITION in proper
    said_again = (row_values[_REPETITION], proper[_REPETITION]) if circles else ()
    return gibberish(row_values[BASE_NLL], proper[BASE_NLL], *said_again)


def _of_model(
    split: str, base_nll: AnswerNLL, gold_base_nll: AnswerNLL, answers: Sequence[str], golds: Sequence[str]
) -> dict[str, NDArray[np.generic]]:
    nll, said_again = base_nll.mean, (repetition(answers), repetition(golds))
    return {f"{split}_base_nll": nll, "gibberish_beside_gold": gibberish(nll, gold_base_nll.mean, *said_again)}


def _beside_retrained(
    row_values: Mapping[str, NDArray[np.float64]], retrained_row_values: Mapping[str, NDArray[np.float64]]
) -> dict[str, float]:
    if BASE_NLL not in row_values or BASE_NLL not in retrained_row_values:
        return {}
    return {"gibberish": float(gibberish_of_rows(row_values, retrained_row_values).mean())}


FLUENCY = Metric(_of_model)
GIBBERISH = Metric(_beside_retrained, splits=(), columns=("gibberish",), reads=("fluency", "variety"))
