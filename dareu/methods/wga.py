"""Weighted gradient ascent."""

from __future__ import annotations

from torch import Tensor

from dareu.methods._checks import check_not_negative, mean_over_records
from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def wga(token_logps: Tensor, rows: Tensor, lengths: Tensor, *, beta: float = 1.0) -> Tensor:
    """−(1/T) Σ_t p_t^β · NLL_t, averaged over records (Wang et al. 2025, arXiv 2502.19301).

    The weight p_t^β is a constant in the gradient, as in the authors' experiments and in public code: it fades the
    ascent where the token is forgotten already. Were it differentiated, ascent would turn into descent below
    p = exp(−1/β).

    Args:
        token_logps: (n,) log-probabilities log p_t of the answers' tokens.
        rows: int64 (n,), the record of each token.
        lengths: (B,) tokens of each record.
        beta: Exponent ≥ 0 of the weight; 0 is gradient ascent.

    Returns:
        A scalar ≤ 0.

    Raises:
        ValueError: `beta` is no number ≥ 0.
    """
    check_not_negative("beta", beta)
    weights = token_logps.detach().exp() ** beta
    return mean_over_records(weights * token_logps, rows, lengths)


WGA = Method(UnlearnTrainer, UnlearnConfig, wga)
