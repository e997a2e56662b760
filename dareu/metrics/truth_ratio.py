"""Whether a model still tells the right answer from wrong ones: TOFU's truth ratio and forget quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dareu.metrics._metric import Metric
from dareu.metrics._rows import check_lengths
from dareu.metrics.likelihood import AnswerNLL, probability

#: The number whose values of rows are compared with the retrained model's.
WRONG_TO_RIGHT = "forget_wrong_to_right"


def truth_ratio(right_nll_mean: ArrayLike, wrong_nll_mean: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """TOFU's R_truth: how likely wrong answers are beside a right one (Maini et al. 2024, arXiv 2401.06121).

        R = exp(-mean_j NLL_mean(wrong_j)) / (exp(-NLL_mean(right)) + 1e-10)

    Args:
        right_nll_mean: NLL per token of n right answers, as the paraphrases of gold answers are, (n,).
        wrong_nll_mean: For each row those of its wrong answers.

    Returns:
        Ratios, 0 or more, NaN where a row has no wrong answers, (n,).

    Raises:
        ValueError: The lists differ in length.
    """
    right = probability(right_nll_mean)
    check_lengths(right=right, wrong=wrong_nll_mean)
    wrong = np.full(len(right), np.nan)
    for row, each in enumerate(wrong_nll_mean):
        if (nll := np.asarray(each, dtype=np.float64)).size:
            wrong[row] = nll.mean()
    return probability(wrong) / (right + 1e-10)


def forgotten_share(ratio: ArrayLike) -> NDArray[np.float64]:
    """min(R, 1/R), in [0, 1]: 1 where right and wrong answers are as likely as each other; NaN stays."""
    ratios = np.asarray(ratio, dtype=np.float64)
    with np.errstate(divide="ignore"):
        shares: NDArray[np.float64] = np.minimum(ratios, 1 / ratios)
    return shares


def known_share(ratio: ArrayLike) -> NDArray[np.float64]:
    """max(0, 1 - R), in [0, 1]: 1 where wrong answers have no probability beside the right one; NaN stays."""
    return np.maximum(0, 1 - np.asarray(ratio, dtype=np.float64))


def forget_quality(ratio: ArrayLike, retrained_ratio: ArrayLike) -> float:
    """The p-value of a two-sample Kolmogorov-Smirnov test between truth ratios, in [0, 1].

    Near 0: the model's ratios are distributed otherwise than the retrained model's. 1: nothing tells them apart. It
    falls with the number of rows.

    Args:
        ratio: The model's R on rows to forget; NaN where a row has none.
        retrained_ratio: The retrained model's.

    Raises:
        ValueError: One of the two has no ratio.
    """
    from scipy.stats import ks_2samp

    samples = [np.asarray(each, dtype=np.float64) for each in (ratio, retrained_ratio)]
    ours, theirs = (each[~np.isnan(each)] for each in samples)
    if not (ours.size and theirs.size):
        raise ValueError("Forget quality needs a truth ratio of both models: give rows with wrong answers.")
    return float(ks_2samp(ours, theirs).pvalue)


def _numbers(
    split: str,
    nll: AnswerNLL,
    paraphrase_nll: NDArray[np.float64],
    wrong_nll: Sequence[NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    right = np.where(np.isnan(paraphrase_nll), nll.mean, paraphrase_nll)  # TOFU's way with questions on the world
    ratio = truth_ratio(right, wrong_nll)
    if split != "forget":
        return {f"{split}_truth_ratio": known_share(ratio)}
    return {"forget_truth_ratio": forgotten_share(ratio), WRONG_TO_RIGHT: ratio}


def _quality(
    row_values: Mapping[str, NDArray[np.float64]], retrained_row_values: Mapping[str, NDArray[np.float64]]
) -> dict[str, float]:
    if WRONG_TO_RIGHT not in row_values or WRONG_TO_RIGHT not in retrained_row_values:
        return {}
    return {"forget_quality": forget_quality(row_values[WRONG_TO_RIGHT], retrained_row_values[WRONG_TO_RIGHT])}


TRUTH_RATIO = Metric(_numbers, ("forget", "retain", "test"))
FORGET_QUALITY = Metric(_quality, splits=(), reads=("truth_ratio",))
