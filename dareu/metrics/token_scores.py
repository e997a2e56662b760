"""What a model predicts at every token of given answers: one pass, from which all likelihood metrics are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dareu.data.encoding import EncodedRecord, Text, encode_prompts, encode_record
from dareu.data.records import text_of
from dareu.metrics._rows import batches, check_lengths, check_prompt_length
from dareu.metrics.kept import Found, Kept, row_key
from dareu.models import context_length
from dareu.models.forward import IGNORED_LABEL, Completions, at_completions, evaluation_mode
from dareu.models.prompts import shared_prompts
from dareu.models.tiles import TILE_ELEMENTS, Predictions
from dareu.models.tokenizers import check_tokenizer, template_end

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TokenScores(NamedTuple):
    """What a model predicts in the places of an answer's T tokens, its end token included; T is at least 1."""

    logps: NDArray[np.float64]
    """log π(token), in nats, (T,)."""
    hits: NDArray[np.bool_]
    """Whether the token is the one that π finds likeliest, (T,)."""
    expected: NDArray[np.float64]
    """The mean of log π under π: minus its entropy, (T,)."""
    deviation: NDArray[np.float64]
    """The standard deviation of log π under π, (T,)."""


def token_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    completions: Sequence[Sequence[Text]],
    *,
    batch_size: int = 32,
    truncate: bool = False,
    kept: Kept | None = None,
) -> list[list[TokenScores]]:
    """Scores every token of every completion, given its prompt and the tokens before it.

    Distributions in float32 over the completion's tokens only, the end token included; an empty completion is its end
    token. The same to 1e-5 at any `batch_size`, and whatever the tokenizer's padding side. Rows of like length are
    scored together, and of those that have a prompt in common it is computed once, where the model allows it.

    Args:
        model: A causal language model; its modes stay as they were.
        tokenizer: Needs an end token and a padding token.
        prompts: n strings or chat message lists.
        completions: For each prompt its completions, of the same form as it.
        batch_size: Completions scored at once.
        truncate: Score only the tokens that fit the model's context, rather than refuse the row.
        kept: Where scores are looked up, and kept; of this model and tokenizer.

    Returns:
        For each of the n prompts the scores of its completions, in their order.

    Raises:
        ValueError: A row does not fit the model's context or cannot be encoded, the lists differ in length,
            or the model gives a row no finite likelihood.
    """
    check_lengths(prompts=prompts, completions=completions)
    check_tokenizer(tokenizer)
    asked = [(row, number) for row, of_prompt in enumerate(completions) for number in range(len(of_prompt))]

    def find(numbers: list[int]) -> list[Found]:
        places = [asked[number] for number in numbers]
        limit, rows = context_length(model), sorted({row for row, _ in places})
        encoded = dict(zip(rows, encode_prompts(tokenizer, prompts, rows), strict=True))
        records = {
            (row, number): _encode(
                tokenizer, row, prompts[row], encoded[row], completions[row][number], limit, truncate
            )
            for row, number in places
        }

        def length(place: tuple[int, int]) -> tuple[int, list[int], int]:
            prompt_ids, completion_ids = records[place]
            return len(prompt_ids), prompt_ids, len(completion_ids)

        found: dict[tuple[int, int], TokenScores] = {}
        with evaluation_mode(model), torch.no_grad():
            # Longest first, which fails at once where the memory is short; and equal prompts side by side
            for some in batches(sorted(places, key=length, reverse=True), batch_size):
                scored = _score(model, tokenizer, [records[place] for place in some])
                found.update(zip(some, scored, strict=True))
        for row, number in places:
            if not np.isfinite(found[row, number].logps).all():
                raise ValueError(
                    f"Row {row}: the model gives no finite likelihood: its weights or logits hold NaN or inf; "
                    "use an earlier checkpoint or a smaller learning rate."
                )
        return [found[place]._asdict() for place in places]

    keys = [row_key(prompts[row], completions[row][number], truncate) for row, number in asked]
    scores = iter((kept or Kept(None, model, tokenizer)).completed("scores", keys, find))
    return [
        [TokenScores(**{name: np.asarray(values) for name, values in next(scores).items()}) for _ in each]
        for each in completions
    ]


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    row: int,
    prompt: Text,
    prompt_ids: list[int],
    completion: Text,
    limit: int | None,
    truncate: bool,
) -> EncodedRecord:
    try:
        if text_of(completion):
            record = encode_record(tokenizer, prompt, completion, prompt_ids)
        else:
            end = tokenizer.eos_token_id if isinstance(prompt, str) else template_end(tokenizer)
            record = EncodedRecord(prompt_ids, [end])
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


def _score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, records: Sequence[EncodedRecord]
) -> Iterator[TokenScores]:
    """Scores of a batch of records."""
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int), "check_tokenizer has looked"
    prompts = _padded([record.prompt_ids for record in records], pad_id, "left")
    completions = _padded([record.completion_ids for record in records], pad_id, "right")
    ids = torch.cat([prompts, completions], 1)
    lengths = [[len(part) for part in record] for record in records]
    is_prompt = _padded([[1] * prompt for prompt, _ in lengths], 0, "left")
    is_completion = _padded([[1] * completion for _, completion in lengths], 0, "right")
    labels = ids.masked_fill(torch.cat([torch.zeros_like(is_prompt), is_completion], 1) == 0, IGNORED_LABEL)
    mask = torch.cat([is_prompt, is_completion], 1)
    # The last token is only predicted
    batch = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1], "labels": labels}
    made: list[Tensor] = []

    def compute(predictions: Predictions, tokens: Completions) -> Tensor:
        made.append(_of_tokens(predictions, tokens.tokens).cpu().double())
        return predictions.inputs.new_zeros(0, dtype=torch.float32)

    with shared_prompts(model, prompts.shape[1] - 1):  # the prompt's last token predicts the completion's first
        at_completions(model, {name: tensor.to(model.device) for name, tensor in batch.items()}, compute)
    for of_row in made[-1].split([completion for _, completion in lengths], dim=1):
        logps, hits, expected, deviation = of_row.numpy()
        yield TokenScores(logps, hits.astype(bool), expected, deviation)


def _padded(rows: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)


def _of_tokens(predictions: Predictions, tokens: Tensor) -> Tensor:
    """(4, n): what `TokenScores` holds, of each token."""
    ready, step = predictions.ready(), max(1, TILE_ELEMENTS // predictions.vocab_size)
    found = []
    for part in (slice(start, start + step) for start in range(0, len(tokens), step)):
        logps = ready.logits(part).log_softmax(-1)
        picked = logps.gather(-1, tokens[part, None]).squeeze(-1)
        hits = logps.argmax(-1) == tokens[part]
        probabilities = logps.exp()
        logps.masked_fill_(probabilities == 0, 0)  # what has no probability has no share, be its logit -inf
        expected = torch.linalg.vecdot(probabilities, logps)
        variance = torch.linalg.vecdot(probabilities, logps.sub_(expected[:, None]).square_())
        found.append(torch.stack([picked, hits.to(picked), expected, variance.sqrt()]))
    return torch.cat(found, 1)
