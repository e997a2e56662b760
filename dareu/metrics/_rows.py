"""What metrics ask of rows: texts that fit a model's context, batches, columns of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import TypeVar

Row = TypeVar("Row")


def check_prompt_length(row: int, length: int, limit: int | None) -> None:
    """Raises a `ValueError` where a prompt has no tokens, or so many that a context of `limit` is full."""
    if length == 0:
        raise ValueError(
            f"Row {row}: the prompt has no tokens: give it a text, or a tokenizer that adds a start token."
        )
    if limit is not None and length > limit - 1:
        raise ValueError(
            f"Row {row}: the prompt has {length} tokens, but the model's context of {limit} leaves room for "
            f"at most {limit - 1}: shorten the prompt or drop the row."
        )


def batches(rows: Sequence[Row], batch_size: int) -> Iterator[Sequence[Row]]:
    """Cuts `rows` into runs of at most `batch_size`."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give a whole number of at least 1.")
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def check_lengths(**columns: Sized) -> None:
    """Raises a `ValueError` where lists that go together row by row differ in length."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"There are {listed}: give one of each for every row.")
