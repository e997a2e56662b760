"""How likely a model finds given answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dareu.data.encoding import CompletionCollator, EncodedRecord, Text, encode_prompt, encode_record
from dareu.data.records import text_of
from dareu.metrics._metric import Metric
from dareu.metrics._rows import batches, check_lengths, check_prompt_length
from dareu.models import context_length
from dareu.models.forward import completion_terms, evaluation_mode
from dareu.models.tokenizers import check_tokenizer, template_end

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class AnswerNLL(NamedTuple):
    """Negative log-likelihoods of n answers, end token included."""

    total: NDArray[np.float64]
    """Sum over the answer's tokens, in nats, (n,)."""
    num_tokens: NDArray[np.int64]
    """Tokens summed over, at least 1, (n,)."""

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
) -> AnswerNLL:
    """The model's negative log-likelihood of every completion, given its prompt.

    Log-softmax in float32 over the completion's tokens only, the end token included, summed in float64; an
    empty completion is its end token. The same to 1e-5 at any `batch_size`, and whatever the tokenizer's
    padding side.

    Args:
        model: A causal language model; its modes stay as they were.
        tokenizer: Needs an end token and a padding token.
        prompts: n strings or chat message lists.
        completions: n completions of the same form as their prompts.
        batch_size: Rows scored at once.
        truncate: Score only the tokens that fit the model's context, rather than refuse the row.

    Raises:
        ValueError: A row does not fit the model's context or cannot be encoded, the lists differ in length,
            or the model gives a row no finite likelihood.
    """
    check_lengths(prompts=prompts, completions=completions)
    check_tokenizer(tokenizer)
    limit = context_length(model)
    records = [
        _encode(tokenizer, row, prompt, completion, limit, truncate)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]
    total = np.zeros(len(records), dtype=np.float64)
    num_tokens = np.array([len(record.completion_ids) for record in records], dtype=np.int64)
    collate = CompletionCollator(tokenizer, padding_side="right")
    by_length = sorted(range(len(records)), key=lambda row: -sum(map(len, records[row])))
    with evaluation_mode(model), torch.no_grad():
        for batch in batches(by_length, batch_size):
            total[list(batch)] = _batch_nll(model, collate([records[row] for row in batch]))
    if not np.isfinite(total).all():
        row = int(np.flatnonzero(~np.isfinite(total))[0])
        raise ValueError(
            f"Row {row}: the model gives no finite likelihood: its weights or logits hold NaN or inf; "
            "use an earlier checkpoint or a smaller learning rate."
        )
    return AnswerNLL(total, num_tokens)


def probability(nll_mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability per token, exp(-NLL_mean): the length-normalised answer probability of TOFU, in (0, 1]."""
    return np.exp(-np.asarray(nll_mean, dtype=np.float64))


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    row: int,
    prompt: Text,
    completion: Text,
    limit: int | None,
    truncate: bool,
) -> EncodedRecord:
    try:
        if text_of(completion):
            record = encode_record(tokenizer, prompt, completion)
        else:
            end = tokenizer.eos_token_id if isinstance(prompt, str) else template_end(tokenizer)
            record = EncodedRecord(encode_prompt(tokenizer, prompt), [end])
    except ValueError as error:
        raise ValueError(f"Row {row}: {error}") from error
    check_prompt_length(row, len(record.prompt_ids), limit)
    if limit is None:
        return record
    # The last token is only predicted, never read, and needs no place in the context.
    room = limit + 1 - len(record.prompt_ids)
    if len(record.completion_ids) > room and not truncate:
        raise ValueError(
            f"Row {row}: prompt and completion have {sum(map(len, record)) - 1} tokens before the end token, "
            f"but the model's context holds {limit}: shorten them or drop the row."
        )
    return EncodedRecord(record.prompt_ids, record.completion_ids[:room])


def _batch_nll(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> NDArray[np.float64]:
    """Summed negative log-likelihoods (B,) of a batch that is padded on the right."""
    read = {name: batch[name][:, :-1] for name in ("input_ids", "attention_mask")}  # the last token is only predicted
    inputs = {name: tensor.to(model.device) for name, tensor in (read | {"labels": batch["labels"]}).items()}
    scored = completion_terms(model, inputs)
    totals = torch.zeros(scored.num_rows, dtype=torch.float64)
    totals.index_add_(0, scored.rows.cpu(), -scored.logps().cpu().double())
    return totals.numpy()


def _numbers(split: str, nll: AnswerNLL) -> dict[str, NDArray[np.float64]]:
    return {f"{split}_probability": probability(nll.mean)}


PROBABILITY = Metric(_numbers, ("forget", "retain", "test"), ("forget_probability", "retain_probability"))
