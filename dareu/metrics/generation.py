"""Answers of a model: the greedy one, and samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
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
    asked = [_Asked(ids) for ids in _encoded(model, tokenizer, prompts, max_new_tokens)]
    answers = _answers(model, tokenizer, set(asked), max_new_tokens, batch_size)
    return [answers[each] for each in asked]


def sample_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    *,
    num_samples: int = 16,
    seed: int = 0,
    max_new_tokens: int = 200,
    batch_size: int = 32,
) -> list[list[str]]:
    """Answers to every prompt drawn from the model's own distribution: temperature 1, nothing cut off or penalised.

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
        max_new_tokens: Most tokens of an answer.
        batch_size: Samples drawn at once.

    Returns:
        For each of the n prompts its samples.

    Raises:
        ValueError: As `generate_answers` says; or `num_samples` or `seed` is out of range.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}: give a whole number of at least 1.")
    if seed < 0:
        raise ValueError(f"The seed of the samples is {seed}: give a whole number of at least 0.")
    encoded = _encoded(model, tokenizer, prompts, max_new_tokens)
    asked = [[_Asked(ids, (seed, row, sample)) for sample in range(num_samples)] for row, ids in enumerate(encoded)]
    answers = _answers(model, tokenizer, [each for of_row in asked for each in of_row], max_new_tokens, batch_size)
    return [[answers[each] for each in of_row] for of_row in asked]


class _Asked(NamedTuple):
    """One answer that is wanted."""

    ids: tuple[int, ...]
    """The prompt's tokens."""
    seed: tuple[int, ...] = ()
    """Of the draws; none: the greedy answer."""


class _Drawn:
    """A logits processor that leaves only the token that is drawn; then the greedy choice is a sample.

    Args:
        draws: Numbers in [0, 1), (B, T).
        width: Tokens of the prompts with their padding.
    """

    def __init__(self, draws: torch.Tensor, width: int) -> None:
        self._draws, self._width = draws, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self._width
        cumulated = scores.float().softmax(dim=-1).double().cumsum(dim=-1)
        reached = self._draws[:, step : step + 1] * cumulated[:, -1:]  # the sum is 1 but for rounding
        tokens = torch.searchsorted(cumulated, reached, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens, 0.0)


def _encoded(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Text], max_new_tokens: int
) -> list[tuple[int, ...]]:
    """The prompts' tokens, once it is known that all can be answered."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: give a whole number of at least 1.")
    check_tokenizer(tokenizer)
    encoded = [tuple(encode_prompt(tokenizer, prompt)) for prompt in prompts]
    for row, ids in enumerate(encoded):
        check_prompt_length(row, len(ids), context_length(model))
    return encoded


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Collection[_Asked],
    max_new_tokens: int,
    batch_size: int,
) -> dict[_Asked, str]:
    limit, end_ids = context_length(model), _end_ids(model, tokenizer)

    def room(each: _Asked) -> int:
        return max_new_tokens if limit is None else min(max_new_tokens, limit - len(each.ids))

    # Longest first: a batch too large for the memory fails at once. Rows short of room share no batch with
    # others, so that the room of one row never cuts the answer of another.
    ordered = sorted(asked, key=lambda each: (-len(each.ids), each))
    answers = {}
    with evaluation_mode(model), _plain_generation_config(model), torch.no_grad():
        for new_tokens, alike in groupby(ordered, key=room):
            for batch in batches(list(alike), batch_size):
                generated = _generate(model, batch, new_tokens, end_ids, tokenizer.pad_token_id)
                for each, new_ids in zip(batch, generated, strict=True):
                    answer = list(takewhile(lambda token: token not in end_ids, new_ids))
                    answers[each] = str(tokenizer.decode(answer, skip_special_tokens=True)).strip()
    return answers


def _generate(model: Any, batch: Sequence[_Asked], new_tokens: int, end_ids: list[int], pad_id: int) -> list[list[int]]:
    """The tokens that follow each prompt; behind an end token there may be anything."""
    from transformers import GenerationConfig, LogitsProcessorList

    prompts = [each.ids for each in batch]
    width = max(map(len, prompts))
    input_ids = torch.tensor([[pad_id] * (width - len(ids)) + list(ids) for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    processors = LogitsProcessorList()
    if batch[0].seed:
        draws = np.stack([np.random.default_rng(each.seed).random(new_tokens) for each in batch])
        processors.append(_Drawn(torch.from_numpy(draws).to(model.device), width))
    output = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=mask.to(model.device),
        logits_processor=processors,
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
