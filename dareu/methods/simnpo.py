"""Simple negative preference optimisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from dareu.methods._checks import check_number, check_positive
from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def simnpo(logps: Tensor, lengths: Tensor, *, beta: float = 4.5, delta: float = 0.0) -> Tensor:
    """−(2/β) log σ(β (NLL_mean − δ)), averaged over records (Fan et al. 2024, arXiv 2410.07163).

    NPO without the original model: the answers' own length takes its place.

    Args:
        logps: (B,) summed log-probabilities of the answers' tokens.
        lengths: (B,) their token counts.
        beta: Inverse temperature > 0.
        delta: The margin, in nats a token: an answer whose NLL_mean is well above it is let alone.

    Returns:
        A scalar ≥ 0.

    Raises:
        ValueError: `beta` is no number > 0, or `delta` no number.
    """
    check_positive("beta", beta)
    check_number("delta", delta)
    return -(2.0 / beta) * logsigmoid(beta * (-logps / lengths - delta)).mean()


SIMNPO = Method(UnlearnTrainer, UnlearnConfig, simnpo, {"forget_coef": 0.125, "retain_loss": "nll", "retain_coef": 1.0})
