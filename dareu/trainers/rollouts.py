"""Completions of the original model: made and scored once, and kept in a file known by what went into it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dareu.files import atomic_file, content_hash
from dareu.trainers.estimators import TokenScores

logger = logging.getLogger(__name__)


def length_sorted_batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in batches of `size` (the last may be smaller) whose lengths are alike, shortest first.

    >>> list(length_sorted_batches([7, 1, 5, 2], 2))
    [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), size):
        yield order[start : start + size]


class Sample(NamedTuple):
    """One scored completion of T tokens, on the CPU."""

    prompt_ids: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    logps: Tensor
    rewards: Tensor
    terminal: Tensor
    scored: Tensor


def take_apart(
    rollout: Mapping[str, Tensor], logps: Tensor, scores: TokenScores, lengths: Sequence[int]
) -> list[Sample]:
    """The samples of a padded batch.

    Args:
        rollout: TRL's: left-padded `prompt_ids`, `prompt_mask`, right-padded `completion_ids`, `completion_mask`.
        logps: (B, T) log-probabilities under the model that sampled.
        scores: Of the same batch.
        lengths: Tokens of each completion, cut-off ones included.
    """
    samples = []
    for i, length in enumerate(lengths):
        tensors = (
            rollout["prompt_ids"][i][rollout["prompt_mask"][i].bool()],
            *(t[i][:length] for t in (rollout["completion_ids"], rollout["completion_mask"], logps, scores.rewards)),
            scores.terminal[i],
            scores.scored[i],
        )
        samples.append(Sample(*(tensor.clone().cpu() for tensor in tensors)))
    return samples


def put_together(
    samples: Sequence[Sample], pad_token_id: int, device: torch.device
) -> tuple[dict[str, Tensor], TokenScores]:
    """What `take_apart` took apart: TRL's batch, whose old and reference log-probabilities are the stored ones."""

    def padded(name: str, value: float = 0.0, side: str = "right") -> Tensor:
        return pad_sequence([getattr(sample, name) for sample in samples], True, value, side).to(device)

    real = [torch.ones_like(sample.prompt_ids) for sample in samples]
    rollout = {
        "prompt_ids": padded("prompt_ids", pad_token_id, "left"),
        "prompt_mask": pad_sequence(real, True, 0, "left").to(device),
        "completion_ids": padded("completion_ids", pad_token_id),
        "completion_mask": padded("completion_mask"),
        "old_per_token_logps": padded("logps"),
    }
    rollout["ref_per_token_logps"] = rollout["old_per_token_logps"]
    terminal, scored = (torch.stack([getattr(s, name) for s in samples]).to(device) for name in ("terminal", "scored"))
    return rollout, TokenScores(padded("rewards"), terminal, scored, rollout["completion_mask"].bool())


class RolloutCache:
    """A file of completions whose name is the hash of all that decides them.

    Args:
        folder: Where such files are kept; runs may share it.
        recipe: Model, prompts, sampling options and seed, as plain values.
    """

    def __init__(self, folder: str | os.PathLike[str], recipe: Mapping[str, Any]) -> None:
        self.path = Path(folder) / f"{content_hash(recipe)[:32]}.safetensors"

    def load(self) -> dict[int, list[list[int]]] | None:
        """For each row its completions as token ids; None where none are kept, or the file is damaged."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                counts = json.loads((file.metadata() or {})["rollouts"])
                parts = file.get_tensor("completion_ids").split(file.get_tensor("lengths").tolist())
        except (SafetensorError, KeyError, RuntimeError, json.JSONDecodeError) as error:
            logger.warning("%s is no whole file of rollouts (%s): they are made again.", self.path, error)
            return None
        logger.info("Found %d completions of the original model in %s.", len(parts), self.path)
        completions = iter(parts)
        return {row: [next(completions).tolist() for _ in range(count)] for row, count in counts}

    def save(self, completions: Mapping[int, Sequence[Sequence[int]]]) -> None:
        """Writes the completions; the file appears whole or not at all."""
        flat = [ids for row in completions.values() for ids in row]
        with atomic_file(self.path) as temporary:
            save_file(
                {
                    "completion_ids": torch.tensor([token for ids in flat for token in ids], dtype=torch.int32),
                    "lengths": torch.tensor([len(ids) for ids in flat], dtype=torch.int32),
                },
                temporary,
                metadata={"rollouts": json.dumps([[row, len(ids)] for row, ids in completions.items()])},
            )
