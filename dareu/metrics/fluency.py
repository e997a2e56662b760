"""How fluent a model is: what the checkpoint before fine-tuning thinks of its answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dareu.metrics._metric import Metric
from dareu.metrics.likelihood import AnswerNLL

#: The number whose values of rows tell of broken language.
BASE_NLL = "forget_base_nll"

#: Where the least likely answers of who speaks properly begin.
_QUANTILE = 0.95


def gibberish(nll: ArrayLike, proper_nll: ArrayLike) -> NDArray[np.bool_]:
    """Which answers the base model finds less likely than nearly all proper ones: broken language.

    Above the 95th percentile of the proper ones, so that of these themselves one in twenty counts.

    Args:
        nll: NLL per token of n answers under the base model.
        proper_nll: The same of answers that are whole sentences, those of the retrained model or the gold ones.

    Returns:
        Flags, (n,).

    Raises:
        ValueError: There are no proper answers, or an NLL is not finite.
    """
    values, proper = np.asarray(nll, dtype=np.float64), np.asarray(proper_nll, dtype=np.float64)
    if not proper.size or not (np.isfinite(values).all() and np.isfinite(proper).all()):
        raise ValueError("Gibberish needs finite NLLs of all answers, and at least one proper answer: measure again.")
    return np.asarray(values > np.quantile(proper, _QUANTILE))


def _of_model(split: str, base_nll: AnswerNLL, gold_base_nll: AnswerNLL) -> dict[str, NDArray[np.generic]]:
    nll = base_nll.mean
    return {f"{split}_base_nll": nll, "gibberish_beside_gold": gibberish(nll, gold_base_nll.mean)}


def _beside_retrained(
    row_values: Mapping[str, NDArray[np.float64]], retrained_row_values: Mapping[str, NDArray[np.float64]]
) -> dict[str, float]:
    if BASE_NLL not in row_values or BASE_NLL not in retrained_row_values:
        return {}
    return {"gibberish": float(gibberish(row_values[BASE_NLL], retrained_row_values[BASE_NLL]).mean())}


FLUENCY = Metric(_of_model)
GIBBERISH = Metric(_beside_retrained, splits=(), columns=("gibberish",), reads=("fluency",))
