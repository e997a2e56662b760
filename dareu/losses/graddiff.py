"""Gradient difference."""

from __future__ import annotations

from torch import Tensor


def graddiff(logps: Tensor, lengths: Tensor) -> Tensor:
    """Gradient ascent on the forget answers: the mean over records of −NLL_mean (Liu et al. 2022, arXiv 2203.12817).

    With the trainer's retain term this is GradDiff.

    Args:
        logps: (B,) summed log-probabilities of the answers' tokens.
        lengths: (B,) their token counts.

    Returns:
        A scalar, unbounded below.
    """
    return (logps / lengths).mean()
