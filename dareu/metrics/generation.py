"""Answers of a model: the greedy one, and samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple

from dareu.data.encoding import Text, encode_prompts
from dareu.metrics._rows import batches, check_prompt_length
from dareu.metrics.kept import Found, Kept, row_key
from dareu.models import context_length
from dareu.models.forward import evaluation_mode
from dareu.models.generation import end_ids_of, generate_ids
from dareu.models.tokenizers import check_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    *,
    max_new_tokens: int = 200,
    batch_size: int = 32,
    kept: Kept | None = None,
) -> list[str]:
    """The model's greedy answer to every prompt.

    Plain greedy decoding, whatever sampling or penalties the model's `generation_config` asks for; only its
    end tokens are heeded, beside the tokenizer's. An answer ends there, after `max_new_tokens`, or where the
    model's context is full. Batches are padded on the left, each prompt at its own positions, so that an
    answer does not depend on `batch_size`, unless two tokens tie to within float rounding. Equal prompts are
    answered once.

    Args:
        model: A causal language model, adapters included; its modes and `generation_config` are left alone.
        tokenizer: Needs an end token and a padding token; its `padding_side` is neither used nor changed.
        prompts: n strings or chat message lists.
        max_new_tokens: Most tokens of an answer.
        batch_size: Prompts answered at once.
        kept: Where answers are looked up, and kept; of this model and tokenizer.

    Returns:
        n answers without special tokens and surrounding whitespace, in the order of `prompts`; may be empty.

    Raises:
        ValueError: A prompt has no tokens or is longer than the model's context less one token (named by its
            row), the tokenizer lacks a token, or an argument is out of range.
    """
    asked = [_Asked(row) for row in range(len(prompts))]
    return _answers(model, tokenizer, prompts, asked, max_new_tokens, batch_size, kept)


def sample_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    *,
    num_samples: int = 16,
    seed: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int = 200,
    batch_size: int = 32,
    kept: Kept | None = None,
) -> list[list[str]]:
    """Answers to every prompt drawn from the model's own distribution, of which nothing is cut off or penalised.

    Each sample draws one uniform number a token from a generator of its own, seeded by `seed`, the prompt's row and
    the sample's number, and takes the token at which the cumulated probability reaches it. So a sample depends neither
    on the batch nor on how many others there are, unless a number falls within float rounding of a border, and two
    models are asked with the same numbers. All else is as `generate_answers` says.

    Args:
        model: See `generate_answers`, as of the others.
        tokenizer: Its tokenizer.
        prompts: n prompts; equal ones are sampled apart.
        num_samples: Samples of each.
        seed: Of all draws.
        temperature: Divides the logits, > 0.
        max_new_tokens: Most tokens of an answer.
        batch_size: Samples drawn at once.
        kept: See `generate_answers`.

    Returns:
        For each of the n prompts its samples.

    Raises:
        ValueError: As `generate_answers` says; or `num_samples`, `seed` or `temperature` is out of range.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}: give a whole number of at least 1.")
    if seed < 0:
        raise ValueError(f"The seed of the samples is {seed}: give a whole number of at least 0.")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: give a number above 0.")
    places = [(row, sample) for row in range(len(prompts)) for sample in range(num_samples)]
    asked = [_Asked(row, (seed, row, sample), temperature) for row, sample in places]
    answers = iter(_answers(model, tokenizer, prompts, asked, max_new_tokens, batch_size, kept))
    return [list(islice(answers, num_samples)) for _ in prompts]


class _Asked(NamedTuple):
    """One answer that is wanted."""

    row: int
    """Of the prompt."""
    seed: tuple[int, ...] = ()
    """Of the draws; none: the greedy answer."""
    temperature: float = 1.0
    """Of these."""


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    asked: Sequence[_Asked],
    max_new_tokens: int,
    batch_size: int,
    kept: Kept | None,
) -> list[str]:
    """The answers that are wanted, each found once, where it is not kept already."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: give a whole number of at least 1.")
    check_tokenizer(tokenizer)
    end_ids = sorted(end_ids_of(model, tokenizer))

    def find(places: list[int]) -> list[Found]:
        rows = sorted({asked[place].row for place in places})
        encoded = dict(zip(rows, map(tuple, encode_prompts(tokenizer, prompts, rows)), strict=True))
        for row, ids in encoded.items():
            check_prompt_length(row, len(ids), context_length(model))
        wanted = [_Wanted(encoded[asked[place].row], *asked[place][1:]) for place in places]
        answers = _found(model, tokenizer, wanted, max_new_tokens, batch_size)
        return [{"answer": answers[each]} for each in wanted]

    keys = [row_key(prompts[row], *drawn, max_new_tokens, end_ids) for row, *drawn in asked]
    return [found["answer"] for found in (kept or Kept(None, model, tokenizer)).completed("answers", keys, find)]


class _Wanted(NamedTuple):
    """One answer that has to be found; see `_Asked`."""

    ids: tuple[int, ...]
    """The prompt's tokens."""
    seed: tuple[int, ...]
    temperature: float


def _found(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    wanted: Sequence[_Wanted],
    max_new_tokens: int,
    batch_size: int,
) -> dict[_Wanted, str]:
    limit, end_ids, pad_id = context_length(model), end_ids_of(model, tokenizer), tokenizer.pad_token_id
    assert pad_id is not None, "check_tokenizer has looked"

    def room(each: _Wanted) -> int:
        return max_new_tokens if limit is None else min(max_new_tokens, limit - len(each.ids))

    # Longest first: a batch too large for the memory fails at once. Rows short of room share no batch with
    # others, so that the room of one row never cuts the answer of another.
    ordered = sorted(wanted, key=lambda each: (-len(each.ids), each))
    answers = {}
    with evaluation_mode(model):
        for new_tokens, alike in groupby(ordered, key=room):
            for batch in batches(list(alike), batch_size):
                generated = generate_ids(
                    model,
                    [each.ids for each in batch],
                    max_new_tokens=new_tokens,
                    end_ids=end_ids,
                    pad_id=pad_id,
                    seeds=[each.seed for each in batch] if batch[0].seed else None,
                    temperature=batch[0].temperature,  # which all of a call share
                )
                for each, new_ids in zip(batch, generated, strict=True):
                    answer = new_ids[:-1] if new_ids[-1] in end_ids else new_ids
                    answers[each] = str(tokenizer.decode(answer, skip_special_tokens=True)).strip()
    return answers
