"""SCRUB: a student that obeys its teacher on retained records only."""

from __future__ import annotations

from torch import Tensor


def scrub(kl: Tensor) -> Tensor:
    """−KL(π_N ‖ π) on forget answers, averaged over records: SCRUB's max step (Kurmanji et al. 2023, arXiv 2302.09880).

    Args:
        kl: (B,) divergences averaged over each answer's tokens.

    Returns:
        A scalar ≤ 0; 0 before the first update, where its gradient is 0 too.
    """
    return -kl.mean()


def scrub_retain(kl: Tensor, nll: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """α · KL(π_N ‖ π) + γ · NLL_mean on retained answers, averaged over records: SCRUB's min step.

    Args:
        kl: (B,) divergences averaged over each answer's tokens.
        nll: (B,) negative log-probabilities averaged likewise.
        alpha: Weight of the divergence.
        gamma: Weight of the task loss.

    Returns:
        A scalar ≥ 0.
    """
    return (alpha * kl + gamma * nll).mean()
