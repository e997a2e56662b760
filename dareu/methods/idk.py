"""Preference optimisation by refusals, also called IDK."""

from __future__ import annotations

from torch import Tensor

from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def idk(refusal_logps: Tensor, refusal_lengths: Tensor) -> Tensor:
    """NLL_mean of a refusal in place of the answer, averaged over records (PO of Maini et al. 2024, arXiv 2401.06121).

    Args:
        refusal_logps: (B,) summed log-probabilities of the tokens of each record's refusal.
        refusal_lengths: (B,) their token counts.

    Returns:
        A scalar ≥ 0.
    """
    return -(refusal_logps / refusal_lengths).mean()


IDK = Method(UnlearnTrainer, UnlearnConfig, idk, {"retain_loss": "nll", "retain_coef": 1.0})
