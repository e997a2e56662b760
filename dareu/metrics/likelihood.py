"""How likely a model finds given answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dareu.data.encoding import Text
from dareu.metrics._metric import Metric
from dareu.metrics._rows import check_lengths
from dareu.metrics.kept import Kept
from dareu.metrics.token_scores import TokenScores, token_scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class AnswerNLL(NamedTuple):
    """Negative log-likelihoods of n answers, end token included."""

    total: NDArray[np.float64]
    """Sum over the answer's tokens, in nats, (n,)."""
    num_tokens: NDArray[np.int64]
    """Tokens summed over, at least 1, (n,)."""

    @classmethod
    def of(cls, scores: Sequence[TokenScores]) -> AnswerNLL:
        """Those of n answers whose tokens have these scores."""
        total = np.array([-each.logps.sum() for each in scores], dtype=np.float64)
        return cls(total, np.array([len(each.logps) for each in scores], dtype=np.int64))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Nats per token, (n,)."""
        return self.total / self.num_tokens


def answer_nll(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    batch_size: int = 32,
    truncate: bool = False,
    kept: Kept | None = None,
) -> AnswerNLL:
    """The model's negative log-likelihood of every completion, given its prompt: `token_scores`, summed in float64.

    Args:
        model: See `token_scores`, as of the others.
        tokenizer: Needs an end token and a padding token.
        prompts: n strings or chat message lists.
        completions: n completions of the same form as their prompts.
        batch_size: Rows scored at once.
        truncate: Score only the tokens that fit the model's context, rather than refuse the row.
        kept: Where scores are looked up, and kept.

    Raises:
        ValueError: As `token_scores` says.
    """
    each = [[completion] for completion in completions]
    found = token_scores(model, tokenizer, prompts, each, batch_size=batch_size, truncate=truncate, kept=kept)
    return AnswerNLL.of([scores for (scores,) in found])


def probability(nll_mean: ArrayLike) -> NDArray[np.float64]:
    """Probability per token, exp(-NLL_mean): the length-normalised answer probability of TOFU, in (0, 1]."""
    return np.exp(-np.asarray(nll_mean, dtype=np.float64))


def option_probability(nll_mean: ArrayLike, wrong_nll_mean: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Probability of the right answer among those on offer, p / (p + Σ p_wrong) with p = exp(-NLL_mean).

    Args:
        nll_mean: NLL per token of n right answers, (n,).
        wrong_nll_mean: For each row those of its wrong answers.

    Returns:
        Shares in (0, 1], NaN where a row has no wrong answers, (n,).

    Raises:
        ValueError: The lists differ in length.
    """
    right = np.asarray(nll_mean, dtype=np.float64)
    check_lengths(right=right, wrong=wrong_nll_mean)
    shares = np.full(len(right), np.nan)
    for row, wrong in enumerate(wrong_nll_mean):
        if (others := np.asarray(wrong, dtype=np.float64)).size:
            with np.errstate(over="ignore"):  # both sides by p: a right answer without any probability has none here
                shares[row] = 1 / (1 + np.exp(right[row] - others).sum())
    return shares


def choice_accuracy(nll_mean: ArrayLike, wrong_nll_mean: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Whether the right answer is the likeliest of those on offer, by its NLL per token.

    Where the options are letters this is the accuracy of MMLU and WMDP; where they are texts, that of the
    length-normalised likelihood. A tie with a wrong answer counts as wrong.

    Args:
        nll_mean: See `option_probability`, as of the other.
        wrong_nll_mean: For each row those of its wrong answers.

    Returns:
        1 or 0, NaN where a row has no wrong answers, (n,).

    Raises:
        ValueError: The lists differ in length.
    """
    right = np.asarray(nll_mean, dtype=np.float64)
    check_lengths(right=right, wrong=wrong_nll_mean)
    wrongs = [np.asarray(wrong, dtype=np.float64) for wrong in wrong_nll_mean]
    return np.array(
        [float(own < others.min()) if others.size else np.nan for own, others in zip(right, wrongs, strict=True)]
    )


def _numbers(split: str, nll: AnswerNLL) -> dict[str, NDArray[np.float64]]:
    return {f"{split}_probability": probability(nll.mean)}


def _of_options(split: str, nll: AnswerNLL, wrong_nll: Sequence[NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    return {
        f"{split}_option_probability": option_probability(nll.mean, wrong_nll),
        f"{split}_choice_accuracy": choice_accuracy(nll.mean, wrong_nll),
    }


PROBABILITY = Metric(_numbers, ("forget", "retain", "test"), ("forget_probability", "retain_probability"))
OPTION_PROBABILITY = Metric(_of_options, ("forget", "retain", "test"))
