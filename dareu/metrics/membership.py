"""Membership inference: whether the likelihood of an answer gives away that a model was trained on it.

Every score is high where an answer looks trained on. Every AUC is 1 where all rows to forget look more so than rows
that no model was trained on, and .5 where nothing tells the two apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dareu.data.encoding import CompletionCollator, encode_dataset
from dareu.metrics._intervals import Estimate, auc_estimate
from dareu.metrics._metric import Metric
from dareu.metrics._offered import OfSplit
from dareu.metrics.token_scores import TokenScores
from dareu.models.forward import completion_mean, evaluation_mode

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: The number that `privleak` reads.
MIN_K = "mia_min_k"


def loss_score(scores: TokenScores) -> float:
    """The mean log-probability of the tokens, -NLL_mean (Yeom et al. 2018, arXiv 1709.01604)."""
    return float(scores.logps.mean())


def zlib_score(scores: TokenScores, text: str) -> float:
    """The same over the bytes that zlib packs the answer in (Carlini et al. 2021, arXiv 2012.07805)."""
    return loss_score(scores) / len(zlib.compress(text.encode()))


def min_k_score(scores: TokenScores, k: float = 0.4) -> float:
    """The mean log-probability of the share `k` of tokens that are least likely (Shi et al. 2024, arXiv 2310.16789)."""
    return _lowest(scores.logps, k)


def min_k_plus_plus_score(scores: TokenScores, k: float = 0.4) -> float:
    """The same of log-probabilities in standard deviations from their mean under the model.

    Zhang et al. 2024, arXiv 2404.02936. A distribution that leaves no choice counts as one of deviation 1e-6.
    """
    return _lowest((scores.logps - scores.expected) / np.maximum(scores.deviation, 1e-6), k)


def gradient_norms(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset) -> NDArray[np.float64]:
    """Euclidean norms of the gradient of each answer's NLL per token, by all weights that require one, (n,).

    A row at a time, a backward each.

    Args:
        model: A causal language model; gradients that it has stay as they are.
        tokenizer: Its tokenizer.
        rows: n records.

    Raises:
        ValueError: A row cannot be encoded, or no weight requires a gradient.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError("Gradient norms need weights that require a gradient, but the model has none: load it anew.")
    collate, norms = CompletionCollator(tokenizer), []
    with evaluation_mode(model), torch.enable_grad():
        for record in encode_dataset(rows, tokenizer):
            batch = {name: tensor.to(model.device) for name, tensor in collate([record]).items()}
            gradients = torch.autograd.grad(completion_mean(model, batch, "logps"), weights, allow_unused=True)
            norms.append(torch.nn.utils.get_total_norm([part for part in gradients if part is not None]).item())
    return np.array(norms, dtype=np.float64)


def privleak(auc: float, retrained_auc: float) -> float:
    """MUSE's PrivLeak, 100 · (A - A_retrained) / A_retrained, in percent (Shi et al. 2025, arXiv 2407.06460).

    A is the AUC of min-k in MUSE's orientation, 1 minus ours, which is 0 where all rows to forget look trained on.
    Below 0: rows to forget still look trained on; above: they look less so than to the retrained model.

    Raises:
        ValueError: All rows to forget look trained on to the retrained model, which leaves nothing to divide by.
    """
    if retrained_auc == 1:
        raise ValueError("PrivLeak has no scale where the retrained model's AUC is 1: give other test rows.")
    return 100 * ((1 - auc) / (1 - retrained_auc) - 1)


def _lowest(values: NDArray[np.float64], k: float) -> float:
    if not 0 < k <= 1:
        raise ValueError(f"k is {k}: give the share of tokens to look at, in (0, 1].")
    number = max(1, int(k * len(values)))
    return float(np.partition(values, number - 1)[:number].mean())


def _auc(splits: Mapping[str, OfSplit], score: Callable[[OfSplit], Any]) -> Estimate:
    return auc_estimate(score(splits["forget"]), score(splits["test"]))


def _by_likelihood(splits: Mapping[str, OfSplit], k: float = 0.4) -> dict[str, Estimate]:
    return {
        "mia_loss": _auc(splits, lambda rows: [loss_score(each) for each in rows.scores]),
        "mia_zlib": _auc(splits, lambda rows: list(map(zlib_score, rows.scores, rows.golds))),
        MIN_K: _auc(splits, lambda rows: [min_k_score(each, k) for each in rows.scores]),
        "mia_min_k_plus_plus": _auc(splits, lambda rows: [min_k_plus_plus_score(each, k) for each in rows.scores]),
    }


def _by_reference(splits: Mapping[str, OfSplit], base_model: PreTrainedModel) -> dict[str, Estimate]:
    assert base_model is not None  # asked for, so that nothing is computed without it: `gold_base_nll` reads it
    return {"mia_reference": _auc(splits, lambda rows: rows.gold_base_nll.mean - rows.nll.mean)}


def _by_gradient(splits: Mapping[str, OfSplit]) -> dict[str, Estimate]:
    return {"mia_gradient_norm": _auc(splits, lambda rows: -gradient_norms(rows.model, rows.tokenizer, rows.rows))}


def _leak(numbers: Mapping[str, float], retrained: Mapping[str, float]) -> dict[str, float]:
    if MIN_K not in numbers or retrained.get(MIN_K, 1.0) == 1:
        return {}
    return {"privleak": privleak(numbers[MIN_K], retrained[MIN_K])}


MIA = Metric(_by_likelihood, splits=(), columns=(MIN_K,))
MIA_REFERENCE = Metric(_by_reference, splits=())
MIA_GRADIENT_NORM = Metric(_by_gradient, splits=(), costly=True)
PRIVLEAK = Metric(_leak, splits=(), reads=("mia",))
