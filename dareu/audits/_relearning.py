"""A little training that brings back what was forgotten: on some of it, or on something else by LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dareu.audits._audit import Audit, Readings
from dareu.audits._options import number, whole_numbers
from dareu.audits._reader import Reader
from dareu.audits._weights import restored
from dareu.data import CompletionCollator, encode_dataset
from dareu.models import context_length

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def _relearnt(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    forget: Dataset,
    reader: Reader,
    seed: int,
    learning_rate: float = 2e-5,
    batch_size: int = 8,
    steps: Sequence[int] | int | None = None,
    num_rows: int | None = None,
) -> Iterator[tuple[str, Readings]]:
    """Fine-tunes all weights on rows to forget, with AdamW at a constant rate.

    `steps`: after which to read; default: a quarter, half and the whole of an epoch. `num_rows`: how many rows are
    relearnt, drawn by the seed, and the others alone are read; default: all are, and all are read.
    """
    order = np.random.default_rng(seed).permutation(len(forget))
    if num_rows is not None and not 0 < num_rows < len(forget):
        raise ValueError(
            f"num_rows is {num_rows}, of {len(forget)} rows to forget: relearn some of them, or leave it out."
        )
    learnt = order[:num_rows]
    others = None if num_rows is None else sorted(order[num_rows:].tolist())
    at = _read_after(steps, len(learnt), batch_size)
    with restored(model):
        model.requires_grad_(True)
        for step in _trained(model, model, tokenizer, forget.select(learnt), at[-1], learning_rate, batch_size, seed):
            if step in at:
                yield _named(step), reader.read(rows=others)


def _relearnt_elsewhere(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    unrelated: Dataset,
    reader: Reader,
    seed: int,
    learning_rate: float = 2e-4,
    batch_size: int = 8,
    steps: Sequence[int] | int | None = None,
    r: int = 8,
    lora_alpha: int = 16,
) -> Iterator[tuple[str, Readings]]:
    """Fine-tunes a LoRA on all linear layers on rows that have nothing to do with what was forgotten.

    `steps`: after which to read; default: a quarter, half and the whole of an epoch.
    """
    from peft import LoraConfig, get_peft_model

    at = _read_after(steps, len(unrelated), batch_size)
    config = LoraConfig(r=r, lora_alpha=lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with restored(model):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            adapted: Any = get_peft_model(model, config)
        try:
            for step in _trained(adapted, model, tokenizer, unrelated, at[-1], learning_rate, batch_size, seed):
                if step in at:
                    yield _named(step), reader.read()
        finally:
            adapted.unload()  # the layers are the model's own again


def _trained(
    trained: Any,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    num_steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> Iterator[int]:
    """Trains on the rows, epoch after epoch in an order of its own; after each step its number, from 1."""
    records = encode_dataset(rows, tokenizer, max_length=context_length(model))
    (size,) = whole_numbers("batch_size", batch_size)
    collate, draws = CompletionCollator(tokenizer), np.random.default_rng([seed, 1])
    optimizer = torch.optim.AdamW(
        [p for p in trained.parameters() if p.requires_grad], lr=number("learning_rate", learning_rate), weight_decay=0
    )
    order: list[int] = []
    was_training = model.training
    for step in range(1, num_steps + 1):
        if not order:
            order = draws.permutation(len(records)).tolist()
        chosen, order = order[:size], order[size:]
        batch = {name: tensor.to(model.device) for name, tensor in collate([records[i] for i in chosen]).items()}
        trained.train()
        try:
            with torch.random.fork_rng():  # dropout's draws are the step's own
                torch.manual_seed(int(draws.integers(2**62)))
                trained(**batch).loss.backward()
        finally:
            trained.train(was_training)
        optimizer.step()
        optimizer.zero_grad()
        yield step


def _read_after(steps: Sequence[int] | int | None, num_rows: int, batch_size: int) -> list[int]:
    """The steps after which the model is read, in their order."""
    (size,) = whole_numbers("batch_size", batch_size)
    epoch = -(-num_rows // size)
    return sorted({-(-epoch // 4), -(-epoch // 2), epoch} if steps is None else set(whole_numbers("steps", steps)))


def _named(step: int) -> str:
    return "1 step" if step == 1 else f"{step} steps"


RELEARNING = Audit(_relearnt)
LORA_RELEARNING = Audit(_relearnt_elsewhere)
