"""Saturation-importance reweighting of gradient ascent."""

from __future__ import annotations

from torch import Tensor

from dareu.methods._checks import check_not_negative, mean_over_records
from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def satimp(token_logps: Tensor, rows: Tensor, lengths: Tensor, *, beta1: float = 5.0, beta2: float = 1.0) -> Tensor:
    """−(1/T) Σ_t p_t^β1 (1 − p_t)^β2 · NLL_t, averaged over records (Yang et al. 2025, arXiv 2505.11953).

    Both weights are constants in the gradient, as in public code. The first fades tokens that are forgotten already,
    the second those that any model would predict.

    Args:
        token_logps: (n,) log-probabilities log p_t of the answers' tokens.
        rows: int64 (n,), the record of each token.
        lengths: (B,) tokens of each record.
        beta1: Exponent ≥ 0 of the saturation weight.
        beta2: Exponent ≥ 0 of the importance weight; with 0 the loss is WGA, with both 0 gradient ascent.

    Returns:
        A scalar ≤ 0.

    Raises:
        ValueError: `beta1` or `beta2` is no number ≥ 0.
    """
    check_not_negative("beta1", beta1)
    check_not_negative("beta2", beta2)
    p = token_logps.detach().exp()
    return mean_over_records(p**beta1 * (1 - p) ** beta2 * token_logps, rows, lengths)


SATIMP = Method(UnlearnTrainer, UnlearnConfig, satimp, {"forget_coef": 0.1, "retain_loss": "nll", "retain_coef": 1.0})
