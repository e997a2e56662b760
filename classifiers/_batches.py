"""Which rows go together: batches that hold every class alike, and sequences padded on the right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def balanced_batches(
    labels: Sequence[int], lengths: Sequence[int], batch_size: int, generator: torch.Generator
) -> list[list[int]]:
    """Row numbers of one epoch's batches, drawn equally from every class.

    The counts of the classes in a batch differ by at most one, and an epoch has about as many draws as there
    are rows: a small class repeats its rows, a large one shows a new random part of them each epoch. Rows of
    a batch have similar lengths, so that little padding is needed.

    Args:
        labels: class number of each row; every number from 0 to the highest occurs.
        lengths: length of each row in tokens.
        batch_size: rows in a batch; only one batch may be shorter.
        generator: source of all randomness.
    """
    rows_of: list[list[int]] = [[] for _ in range(max(labels) + 1)]
    for row, label in enumerate(labels):
        rows_of[label].append(row)
    rounds = math.ceil(len(labels) / len(rows_of))
    columns = []
    for label in torch.randperm(len(rows_of), generator=generator).tolist():
        drawn: list[int] = []
        while len(drawn) < rounds:
            order = torch.randperm(len(rows_of[label]), generator=generator).tolist()
            drawn += [rows_of[label][index] for index in order]
        columns.append(sorted(drawn[:rounds], key=lengths.__getitem__))
    # One row of every class a round, the classes always in the same order: any run of rows is then balanced.
    stream = [row for rows in zip(*columns, strict=True) for row in rows]
    batches = [stream[start : start + batch_size] for start in range(0, len(stream), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def pad_right(sequences: Sequence[Sequence[int]], device: torch.device) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, int64 (B, T); the padding is id 0, which the mask hides."""
    width = max(map(len, sequences))
    return {
        "input_ids": torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences], device=device),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences], device=device),
    }
