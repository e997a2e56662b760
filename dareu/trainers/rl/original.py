"""Rollouts of the model before unlearning: made by a `DareUTrainer` once, before it trains, and used ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from dareu.data.encoding import encode_prompt
from dareu.data.records import text_of
from dareu.trainers.rl.estimators import TokenScores
from dareu.trainers.rl.rollouts import RolloutCache, Sample, put_together, take_apart

#: The options that decide what is sampled, beside model and prompts.
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length", "num_generations")


#: The column that tells a forget row's place in the dataset.
ROW = "rollout_row"


class Sampler(Protocol):
    """What is asked of the trainer."""

    args: Any
    accelerator: Any
    model: Any
    train_dataset: Any
    processing_class: Any
    num_generations: int
    eos_token_ids: Any
    completion_lengths: list[int]
    """Tokens of the last rollout's completions."""
    replayed: list[list[int]] | None
    """Completions that the next rollout takes in place of generating any."""

    def rollout(self, inputs: list[dict[str, Any]]) -> tuple[dict[str, Any], TokenScores]:
        """Generates and scores a batch of whole groups."""

    def policy_logps(self, rollout: dict[str, Any]) -> Tensor:
        """(B, T) log-probabilities of the completions."""

    def identity(self) -> str:
        """A name for the model's weights."""


def expected_length(row: Mapping[str, Any]) -> int:
    """Characters of the prompt and of the gold answer, which sampled ones resemble: nobody waits for the longest."""
    return len(text_of(row["prompt"])) + len(row.get("reference", ""))


def make_rollouts(trainer: Sampler) -> dict[int, list[Sample]]:
    """`num_generations` scored completions for every row; the processes share the rows, and all get all.

    Completions that were made before by the same model, for the same prompts and options, are taken from their file.
    """
    args, dataset, accelerator = trainer.args, trainer.train_dataset, trainer.accelerator
    cache = RolloutCache(args.rollout_cache_dir or Path(args.output_dir) / "rollouts", _recipe(trainer))
    known = broadcast_object_list([cache.load() if accelerator.is_main_process else None])[0]
    order = sorted(range(len(dataset)), key=lambda row: expected_length(dataset[row]))
    mine = share_of(order, accelerator.process_index, accelerator.num_processes)
    group = trainer.num_generations
    per_call = max(1, max(args.rollout_batch_size, args.per_device_train_batch_size) // group)
    stored: dict[int, list[Sample]] = {}
    with torch.random.fork_rng():
        torch.manual_seed(args.seed + accelerator.process_index)
        for start in range(0, len(mine), per_call):
            rows = mine[start : start + per_call]
            if known is not None:
                trainer.replayed = [ids for row in rows for ids in known[row]]
            output, scores = trainer.rollout([dict(dataset[row]) for row in rows for _ in range(group)])
            logps = output.get("old_per_token_logps")
            logps = trainer.policy_logps(output) if logps is None else logps
            samples = take_apart(output, logps, scores, trainer.completion_lengths)
            stored |= {row: samples[i * group : (i + 1) * group] for i, row in enumerate(rows)}
    trainer.replayed = None
    if accelerator.num_processes > 1:
        stored = {row: samples for part in gather_object([stored]) for row, samples in part.items()}
    if known is None and accelerator.is_main_process:
        cache.save({row: [sample.completion_ids.tolist() for sample in stored[row]] for row in sorted(stored)})
    return stored


def share_of(rows: Sequence[int], process: int, num_processes: int) -> list[int]:
    """The rows of one process; all get as many, since they call one another, and some rows come twice for it.

    >>> [share_of([5, 6, 7], process, 2) for process in range(2)]
    [[5, 7], [6, 5]]
    """
    turns = -(-len(rows) // num_processes)
    return [rows[(turn * num_processes + process) % len(rows)] for turn in range(turns)]


def stored_batch(
    trainer: Sampler, stored: Mapping[int, Sequence[Sample]], inputs: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], TokenScores]:
    """The stored completions for these rows in TRL's form, each group's in turn, and what the rewards said of them."""
    first = trainer.accelerator.process_index * len(inputs)
    samples = [stored[row[ROW]][(first + i) % trainer.num_generations] for i, row in enumerate(inputs)]
    output, scores = put_together(samples, trainer.processing_class.pad_token_id, trainer.accelerator.device)
    return output | {"num_items_in_batch": trainer.accelerator.gather(scores.mask.sum()).sum()}, scores


def _recipe(trainer: Sampler) -> dict[str, Any]:
    """What decides the completions of the original model; a fresh adapter's names and start are part of the model."""
    args = trainer.args
    return {
        "model": trainer.identity(),
        "dtype": str(next(trainer.model.parameters()).dtype),
        "prompts": [encode_prompt(trainer.processing_class, prompt) for prompt in trainer.train_dataset["prompt"]],
        "options": {name: getattr(args, name) for name in SAMPLING} | (args.generation_kwargs or {}),
        "eos_token_ids": sorted(trainer.eos_token_ids),
        "seed": args.seed,
        "processes": trainer.accelerator.num_processes,
        "batch_size": args.rollout_batch_size,
        "vllm": args.use_vllm,
    }
