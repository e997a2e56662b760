"""The tensors that a forget loss may ask for by name, and the forward passes that give them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from dareu.models.forward import CompletionTerms
from dareu.models.tiles import TERMS

#: A pure function of tensors it names as parameters, and of options with defaults; gives a scalar.
ForgetLoss = Callable[..., Tensor]

_Of = Callable[[CompletionTerms], Tensor]


def summed_logps(scored: CompletionTerms) -> Tensor:
    """float32 (B,): each record's log-probability."""
    return scored.row_sum(scored.logps())


def _term(name: str) -> _Of:
    return lambda scored: scored.terms[name]


#: What the model in training says of the n answer tokens of B records: float32 but for `tokens` and `rows` (int64).
ANSWER: dict[str, _Of] = {
    "logps": summed_logps,  # (B,)
    "lengths": CompletionTerms.lengths,  # (B,)
    "token_logps": CompletionTerms.logps,  # (n,)
    "rows": attrgetter("rows"),  # (n,), the record of each token
    "tokens": attrgetter("tokens"),  # (n,)
}
#: What it says beside π_N: (n,). With q what π_N predicts but for the token, its rest scaled to 1, −Σ q log π; and
#: π_N's own log-odds of the token.
BESIDE: dict[str, _Of] = {name: _term(name) for name in ("others_nll", "ref_odds")}
#: What it says of the refusals that stand in their place: (B,).
REFUSAL: dict[str, _Of] = {"refusal_logps": summed_logps, "refusal_lengths": CompletionTerms.lengths}
#: What it says of the alternates that stand in their place: (B,).
ALTERNATE: dict[str, _Of] = {"alternate_logps": summed_logps, "alternate_lengths": CompletionTerms.lengths}
#: What π_N says of the answers, of the refusals and of the alternates, computed once: (B,).
STORED = ("ref_logps", "ref_refusal_logps", "ref_alternate_logps")
#: What the model and π_N predict in the place of the n answer tokens: (n, V), so much memory that a loss should ask for
#: something above if it can.
LOGITS, REF_LOGITS = "logits", "ref_logits"


def invented(vocab_size: int) -> dict[str, Tensor]:
    """All that a loss may ask for, of two invented records of one and two answer tokens.

    Args:
        vocab_size: V.
    """
    tokens, rows = torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 1])
    made_up = CompletionTerms(tokens, rows, 2, dict.fromkeys(TERMS, torch.full((3,), -math.log(vocab_size))))
    tensors = {name: of(made_up) for name, of in (ANSWER | BESIDE | REFUSAL | ALTERNATE).items()}
    tensors |= dict.fromkeys(STORED, tensors["logps"])
    return tensors | dict.fromkeys((LOGITS, REF_LOGITS), torch.zeros(3, vocab_size))


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
