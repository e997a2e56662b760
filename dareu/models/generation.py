"""Tokens that a model says after prompts: greedily or sampled from its plain softmax, and where they end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dareu.models.tokenizers import template_end

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def generate_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    seeds: Sequence[Sequence[int]] | None = None,
    temperature: float = 1.0,
) -> list[list[int]]:
    """The tokens that follow each prompt, up to its end token and with it.

    Nothing that the model's own `generation_config` asks for has a part in it, such as penalties or a nucleus. A sample
    draws one uniform number a token from a generator of its own and takes the token at which the cumulated probability
    reaches it, so that it does not depend on the batch, unless a number falls within float rounding of a border.

    Args:
        model: A causal language model in evaluation mode, adapters included.
        prompts: B prompts as token ids, of any lengths.
        max_new_tokens: Most tokens of a continuation; one without an end token was cut off.
        end_ids: The tokens that end one.
        pad_id: Pads prompts, on the left.
        seeds: Of each sample's generator, numbers ≥ 0; None: greedy continuations.
        temperature: Divides the logits that are sampled from, > 0.

    Returns:
        B lists of at most `max_new_tokens` ids.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    width = max(map(len, prompts))
    input_ids = torch.tensor([[pad_id] * (width - len(ids)) + list(ids) for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    processors = LogitsProcessorList()
    if seeds is not None:
        draws = np.stack([np.random.default_rng(seed).random(max_new_tokens) for seed in seeds])
        processors.append(_Drawn(torch.from_numpy(draws).to(model.device), width, temperature))
    with plain_generation_config(model), torch.no_grad():
        output = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=mask.to(model.device),
            logits_processor=processors,
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=1,
                use_cache=True,
                max_new_tokens=max_new_tokens,
                eos_token_id=list(end_ids),
                pad_token_id=pad_id,
            ),
        )
    assert isinstance(output, torch.Tensor)
    ends = set(end_ids)
    continuations = []
    for ids in output[:, width:].tolist():
        end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        continuations.append(ids[: end + 1])
    return continuations


class _Drawn:
    """A logits processor that leaves only the token that is drawn; then the greedy choice is a sample.

    Args:
        draws: Numbers in [0, 1), (B, T).
        width: Tokens of the prompts with their padding.
        temperature: Divides the logits.
    """

    def __init__(self, draws: torch.Tensor, width: int, temperature: float) -> None:
        self._draws, self._width, self._temperature = draws, width, temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self._width
        cumulated = (scores.float() / self._temperature).softmax(dim=-1).double().cumsum(dim=-1)
        reached = self._draws[:, step : step + 1] * cumulated[:, -1:]  # the sum is 1 but for rounding
        tokens = torch.searchsorted(cumulated, reached, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens, 0.0)


def end_ids_of(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: those that training ends it with, and those of the model's `generation_config`.

    Of the latter only added tokens, as marks of turns are: another one would cut answers within.
    """
    configured = None if model.generation_config is None else model.generation_config.eos_token_id
    own = [] if configured is None else configured if isinstance(configured, list) else [configured]
    added = tokenizer.added_tokens_decoder
    return sorted({tokenizer.eos_token_id, template_end(tokenizer), *(token for token in own if token in added)})


def list_end_ids(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes `end_ids_of` into the model's `generation_config`, which TRL samples by and which is saved with it.

    What transformers would not save is mended: numbers for sampling without `do_sample` are for sampling, and of any
    other fault the tokens alone are left.
    """
    config = model.generation_config
    if config is None:
        return
    ends = end_ids_of(model, tokenizer)
    config.eos_token_id = ends if len(ends) > 1 else ends[0]
    if _can_be_saved(config):
        return
    config.do_sample = True
    if not _can_be_saved(config):
        logger.warning("The model's generation_config is not valid: of its settings the special tokens alone are kept.")
        tokens = {name: value for name, value in vars(config).items() if name.endswith("_token_id")}
        vars(config).clear()  # in place, since an adapter's model shares it
        vars(config).update(vars(type(config)(**tokens)))


def _can_be_saved(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True


@contextmanager
def plain_generation_config(model: Any) -> Iterator[None]:
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
