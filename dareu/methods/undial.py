"""Self-distillation to adjusted logits."""

from __future__ import annotations

import torch
from torch import Tensor

from dareu.methods._checks import check_positive, mean_over_records
from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def undial(
    logits: Tensor, ref_logits: Tensor, tokens: Tensor, rows: Tensor, lengths: Tensor, *, beta: float = 10.0
) -> Tensor:
    """Cross-entropy to softmax(π_N's logits − β·onehot(y_t)), averaged over tokens, then over records.

    Dong et al. 2024 (arXiv 2402.10052): the model is taught what it said itself, but for the token of the answer.
    Bounded below, and a fixed target: it does not run away as ascent does.

    Args:
        logits: (n, V) what the model predicts in the place of each of the answers' tokens.
        ref_logits: (n, V) the same of the model before unlearning.
        tokens: int64 (n,), the answers' tokens.
        rows: int64 (n,), the record of each token.
        lengths: (B,) tokens of each record.
        beta: How far the token's logit is lowered, > 0.

    Returns:
        A scalar ≥ 0.

    Raises:
        ValueError: `beta` is no number > 0.
    """
    check_positive("beta", beta)
    lowered = ref_logits.scatter_add(1, tokens[:, None], torch.full_like(ref_logits[:, :1], -beta))
    target = lowered.softmax(-1)
    return mean_over_records(-(target * logits.log_softmax(-1)).sum(-1), rows, lengths)


UNDIAL = Method(UnlearnTrainer, UnlearnConfig, undial, {"learning_rate": 1e-4})
