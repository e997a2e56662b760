"""Gradient ascent on the forget answers."""

from __future__ import annotations

from torch import Tensor

from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def gradient_ascent(logps: Tensor, lengths: Tensor) -> Tensor:
    """−NLL_mean = (1/T) Σ_t log π(y_t), averaged over records (Jang et al. 2022, arXiv 2210.01504).

    Alone it is GA; with cross-entropy on retained records, GradDiff (Liu et al. 2022, arXiv 2203.12817); with
    KL(π_N ‖ π) on them, KL-min (Maini et al. 2024, arXiv 2401.06121).

    Args:
        logps: (B,) summed log-probabilities of the answers' tokens.
        lengths: (B,) their token counts.

    Returns:
        A scalar ≤ 0, unbounded below.
    """
    return (logps / lengths).mean()


GA = Method(UnlearnTrainer, UnlearnConfig, gradient_ascent, {"retain_loss": "none"})
GRADDIFF = Method(UnlearnTrainer, UnlearnConfig, gradient_ascent, {"retain_loss": "nll", "retain_coef": 1.0})
KL_MIN = Method(UnlearnTrainer, UnlearnConfig, gradient_ascent, {"retain_loss": "kl", "retain_coef": 1.0})
