"""Alternate preference optimisation: plausible answers of a model that knows nothing are preferred to the answer."""

from __future__ import annotations

from torch import Tensor

from dareu.methods._method import Method
from dareu.methods.dpo import dpo
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def altpo(
    logps: Tensor, ref_logps: Tensor, alternate_logps: Tensor, ref_alternate_logps: Tensor, *, beta: float = 0.1
) -> Tensor:
    """−(2/β) log σ(β [(log π − log π_N)(alternate) − (log π − log π_N)(y)]), averaged over records.

    Mekala et al. 2024 (arXiv 2409.13474): `dpo` whose preferred answers are alternates of the answer in its own style,
    in place of refusals. Theirs are drawn from the target by prompting; ours from the checkpoint that the target was
    fine-tuned from, or they are a column of the data (`alternates`).

    Args:
        logps: (B,) summed log-probabilities of the answers' tokens.
        ref_logps: (B,) the same under the model before unlearning.
        alternate_logps: (B,) those of the tokens of each record's alternate.
        ref_alternate_logps: (B,) the same under the model before unlearning.
        beta: Inverse temperature > 0.

    Returns:
        A scalar ≥ 0; (2/β)·log 2 before the first update.

    Raises:
        ValueError: `beta` is no number > 0.
    """
    return dpo(logps, ref_logps, alternate_logps, ref_alternate_logps, beta=beta)


ALTPO = Method(
    UnlearnTrainer,
    UnlearnConfig,
    altpo,
    {"alternates": "uninformed", "retain_loss": "nll", "retain_coef": 2.0},
)
