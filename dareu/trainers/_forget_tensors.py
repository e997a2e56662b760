"""The tensors that a forget loss may ask for by name, and the forward passes that give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from dareu.models.forward import CompletionLogits

#: A pure function of tensors it names as parameters, and of options with defaults; gives a scalar.
ForgetLoss = Callable[..., Tensor]

_Of = Callable[[CompletionLogits], Tensor]


def summed_logps(scored: CompletionLogits) -> Tensor:
    """float32 (B,): each record's log-probability."""
    return scored.row_sum(scored.logps())


#: What the model in training says of the n answer tokens of B records: float32 but for `tokens` and `rows` (int64).
ANSWER: dict[str, _Of] = {
    "logps": summed_logps,  # (B,)
    "lengths": CompletionLogits.lengths,  # (B,)
    "token_logps": CompletionLogits.logps,  # (n,)
    "rows": attrgetter("rows"),  # (n,), the record of each token
    "tokens": attrgetter("tokens"),  # (n,)
    "logits": attrgetter("logits"),  # (n, V)
}
#: What it says of the refusals that stand in their place: (B,).
REFUSAL: dict[str, _Of] = {"refusal_logps": summed_logps, "refusal_lengths": CompletionLogits.lengths}
#: What it says of the alternates that stand in their place: (B,).
ALTERNATE: dict[str, _Of] = {"alternate_logps": summed_logps, "alternate_lengths": CompletionLogits.lengths}
#: What π_N says of the answers, of the refusals and of the alternates, computed once: (B,).
STORED = ("ref_logps", "ref_refusal_logps", "ref_alternate_logps")
#: What π_N predicts in the place of the n answer tokens: (n, V).
REF_LOGITS = "ref_logits"


def invented(vocab_size: int) -> dict[str, Tensor]:
    """All that a loss may ask for, of two invented records of one and two answer tokens.

    Args:
        vocab_size: V.
    """
    made_up = CompletionLogits(torch.zeros(3, vocab_size), torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 1]), 2)
    tensors = {name: of(made_up) for name, of in (ANSWER | REFUSAL | ALTERNATE).items()}
    return tensors | dict.fromkeys(STORED, tensors["logps"]) | {REF_LOGITS: made_up.logits}


def try_loss(loss: ForgetLoss, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
    """Computes a loss on invented records, so that it refuses its options before anything is trained.

    Args:
        loss: The loss.
        tensors: What it needs.
        options: What else it is given.

    Raises:
        ValueError: The loss's own, or the loss gives no scalar.
    """
    value = loss(**tensors, **options)
    if not isinstance(value, Tensor) or value.dim() > 0:
        given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"The loss gives {given}: let it give a scalar tensor, the mean over records.")
