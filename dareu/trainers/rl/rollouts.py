"""Completions of the original model: made and scored once, and kept in a file known by what went into it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dareu.trainers.rl.estimators import TokenScores
from dareu.trainers.tensor_file import TensorFile


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
    """What `take_apart` took apart: TRL's batch, whose old and original log-probabilities are the stored ones."""

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
        self.file = TensorFile(folder, recipe, "rollouts")

    def load(self) -> dict[int, list[list[int]]] | None:
        """For each row its completions as token ids; None where none are kept, or the file is damaged."""
        return self.file.load(_completions)

    def save(self, completions: Mapping[int, Sequence[Sequence[int]]]) -> None:
        """Writes the completions; the file appears whole or not at all."""
        flat = [ids for row in completions.values() for ids in row]
        self.file.save(
            {
                "completion_ids": torch.tensor([token for ids in flat for token in ids], dtype=torch.int32),
                "lengths": torch.tensor([len(ids) for ids in flat], dtype=torch.int32),
            },
            {"rollouts": json.dumps([[row, len(ids)] for row, ids in completions.items()])},
        )


def _completions(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[int, list[list[int]]]:
    completions = iter(tensors["completion_ids"].split(tensors["lengths"].tolist()))
    return {row: [next(completions).tolist() for _ in range(count)] for row, count in json.loads(metadata["rollouts"])}
