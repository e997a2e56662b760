"""Self-distillation to adjusted logits."""

from __future__ import annotations

from torch import Tensor

from dareu.methods._checks import check_positive, mean_over_records
from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def undial(
    token_logps: Tensor, others_nll: Tensor, ref_odds: Tensor, rows: Tensor, lengths: Tensor, *, beta: float = 10.0
) -> Tensor:
    """Cross-entropy to softmax(π_N's logits − β·onehot(y_t)), averaged over tokens, then over records.

    Dong et al. 2024 (arXiv 2402.10052): the model is taught what it said itself, but for the token of the answer.
    Bounded below, and a fixed target: it does not run away as ascent does.

    What is taught gives the answer's token the share a = σ(log (p_t / (1 − p_t)) − β), p_t its probability under π_N,
    and shares the rest out as π_N does:

        −a · log π(y_t) − (1 − a) · Σ_{v ≠ y_t} π_N(v) / (1 − p_t) · log π(v)

    Args:
        token_logps: (n,) log-probabilities log π(y_t) of the answers' tokens.
        others_nll: (n,) the last sum without its sign.
        ref_odds: (n,) log (p_t / (1 − p_t)).
        rows: int64 (n,), the record of each token.
        lengths: (B,) tokens of each record.
        beta: How far the token's logit is lowered, > 0.

    Returns:
        A scalar ≥ 0.

    Raises:
        ValueError: `beta` is no number > 0.
    """
    check_positive("beta", beta)
    share = (ref_odds - beta).sigmoid()
    return mean_over_records((1 - share) * others_nll - share * token_logps, rows, lengths)


UNDIAL = Method(UnlearnTrainer, UnlearnConfig, undial, {"learning_rate": 1e-4})
