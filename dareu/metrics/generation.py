"""Greedy answers of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Any

import torch

from dareu.data.encoding import Text, encode_prompt
from dareu.metrics._rows import batches, check_prompt_length
from dareu.models import context_length
from dareu.models.forward import evaluation_mode
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
    end_ids = _end_ids(model, tokenizer)
    answers: dict[tuple[int, ...], str] = {}
    with evaluation_mode(model), _plain_generation_config(model), torch.no_grad():
        for new_tokens, rows in groupby(range(len(unique)), key=room):
            for batch in batches(list(rows), batch_size):
                batch_ids = [unique[row] for row in batch]
                generated = _generate(model, batch_ids, new_tokens, end_ids, tokenizer.pad_token_id)
                for ids, new_ids in zip(batch_ids, generated, strict=True):
                    answer = list(takewhile(lambda token: token not in end_ids, new_ids))
                    answers[ids] = str(tokenizer.decode(answer, skip_special_tokens=True)).strip()
    return [answers[ids] for ids in encoded]


def _generate(
    model: Any, prompts: list[tuple[int, ...]], new_tokens: int, end_ids: list[int], pad_id: int
) -> list[list[int]]:
    """The tokens that follow each prompt; behind an end token there may be anything."""
    from transformers import GenerationConfig

    width = max(map(len, prompts))
    input_ids = torch.tensor([[pad_id] * (width - len(ids)) + list(ids) for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    output = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=GenerationConfig(
            do_sample=False,
            num_beams=1,
            use_cache=True,
            max_new_tokens=new_tokens,
            eos_token_id=end_ids,
            pad_token_id=pad_id,
        ),
    )
    assert isinstance(output, torch.Tensor)
    new_ids: list[list[int]] = output[:, width:].tolist()
    return new_ids


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    configured = None if model.generation_config is None else model.generation_config.eos_token_id
    own = [] if configured is None else configured if isinstance(configured, list) else [configured]
    return sorted({tokenizer.eos_token_id, *own})


@contextmanager
def _plain_generation_config(model: PreTrainedModel) -> Iterator[None]:
    """Hides the model's own generation settings.

    `generate` fills every field that the given config leaves at None from the model's config, penalties and
    suppressed tokens included. The fields are swapped in place, because a PEFT model hands the same object on
    to the model within.
    """
    from transformers import GenerationConfig

    if model.generation_config is None:
        yield
        return
    fields = vars(model.generation_config)
    saved = dict(fields)
    fields.clear()
    fields.update(vars(GenerationConfig()))
    try:
        yield
    finally:
        fields.clear()
        fields.update(saved)
