"""Negated task vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def task_vector(logps: Tensor, lengths: Tensor) -> Tensor:
    """NLL_mean of the forget answers: what is learnt before it is subtracted (Ilharco et al. 2023, arXiv 2212.04089).

    Args:
        logps: (B,) summed log-probabilities of the answers' tokens.
        lengths: (B,) their token counts.

    Returns:
        A scalar ≥ 0, averaged over records.
    """
    return -(logps / lengths).mean()


def negated(original: Tensor, tuned: Tensor, *, alpha: float) -> Tensor:
    """θ_o − α (θ_ft − θ_o), computed in float32 at least.

    Args:
        original: θ_o, weights before fine-tuning, of any shape.
        tuned: θ_ft, the same after it.
        alpha: How far to go, > 0.

    Returns:
        A new tensor of `tuned`'s dtype and device.
    """
    dtype = torch.promote_types(tuned.dtype, torch.float32)
    start = original.to(tuned.device, dtype)
    return (start - alpha * (tuned.to(dtype) - start)).to(tuned.dtype)
