"""Direct preference optimisation: a refusal is preferred to the answer."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from dareu.methods._checks import check_positive
from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def dpo(
    logps: Tensor, ref_logps: Tensor, refusal_logps: Tensor, ref_refusal_logps: Tensor, *, beta: float = 0.1
) -> Tensor:
    """−(2/β) log σ(β [(log π − log π_N)(refusal) − (log π − log π_N)(y)]), averaged over records.

    Rafailov et al. 2023 (arXiv 2305.18290), with refusals as in Maini et al. 2024 (arXiv 2401.06121), scaled as NPO.

    Args:
        logps: (B,) summed log-probabilities of the answers' tokens.
        ref_logps: (B,) the same under the model before unlearning.
        refusal_logps: (B,) those of the tokens of each record's refusal.
        ref_refusal_logps: (B,) the same under the model before unlearning.
        beta: Inverse temperature > 0.

    Returns:
        A scalar ≥ 0; (2/β)·log 2 before the first update.

    Raises:
        ValueError: `beta` is no number > 0.
    """
    check_positive("beta", beta)
    margin = (refusal_logps - ref_refusal_logps) - (logps - ref_logps)
    return -(2.0 / beta) * logsigmoid(beta * margin).mean()


DPO = Method(UnlearnTrainer, UnlearnConfig, dpo)
