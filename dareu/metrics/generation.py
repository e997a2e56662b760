"""Greedy answers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from dareu.data.encoding import Text, encode_prompt
from dareu.metrics._rows import batches, check_prompt_length
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

    Returns:
        n answers without special tokens and surrounding whitespace, in the order of `prompts`; may be empty.

    Raises:
        ValueError: A prompt has no tokens or is longer than the model's context less one token (named by its
            row), the tokenizer lacks a token, or an argument is out of range.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: give a whole number of at least 1.")
    check_tokenizer(tokenizer)
    limit = context_length(model)
    encoded = [tuple(encode_prompt(tokenizer, prompt)) for prompt in prompts]
    for row, ids in enumerate(encoded):
        check_prompt_length(row, len(ids), limit)

    def room(row: int) -> int:
        return max_new_tokens if limit is None else min(max_new_tokens, limit - len(unique[row]))

    # Longest first: a batch too large for the memory fails at once. Rows short of room share no batch with
    # others, so that the room of one row never cuts the answer of another.
    unique = sorted(set(encoded), key=lambda ids: (-len(ids), ids))
    end_ids, pad_id = end_ids_of(model, tokenizer), tokenizer.pad_token_id
    assert pad_id is not None, "check_tokenizer has looked"
    answers: dict[tuple[int, ...], str] = {}
    with evaluation_mode(model):
        for new_tokens, rows in groupby(range(len(unique)), key=room):
            for batch in batches(list(rows), batch_size):
                batch_ids = [unique[row] for row in batch]
                generated = generate_ids(model, batch_ids, max_new_tokens=new_tokens, end_ids=end_ids, pad_id=pad_id)
                for ids, new_ids in zip(batch_ids, generated, strict=True):
                    answer = new_ids[:-1] if new_ids[-1] in end_ids else new_ids
                    answers[ids] = str(tokenizer.decode(answer, skip_special_tokens=True)).strip()
    return [answers[ids] for ids in encoded]
