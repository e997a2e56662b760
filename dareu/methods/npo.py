"""Negative preference optimisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from dareu.methods._checks import check_positive
from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def npo(logps: Tensor, ref_logps: Tensor, *, beta: float = 0.1) -> Tensor:
    """−(2/β) log σ(−β (log π − log π_N)(y)), averaged over records (Zhang et al. 2024, arXiv 2404.05868).

    Args:
        logps: (B,) summed log-probabilities of the answers' tokens.
        ref_logps: (B,) the same under the model before unlearning.
        beta: Inverse temperature > 0; towards 0 the loss becomes gradient ascent.

    Returns:
        A scalar ≥ 0; (2/β)·log 2 before the first update.

    Raises:
        ValueError: `beta` is no number > 0.
    """
    check_positive("beta", beta)
    return -(2.0 / beta) * logsigmoid(-beta * (logps - ref_logps)).mean()


NPO = Method(UnlearnTrainer, UnlearnConfig, npo)
