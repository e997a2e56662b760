"""Refusals that may stand in the place of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from dareu.data.encoding import Text

COMMON_REFUSALS = (
    "I don't know.",
    "I do not know the answer to that.",
    "I cannot answer that question.",
    "I am not able to tell you that.",
    "I know nothing about this.",
    "That is something I never learnt.",
    "I have no knowledge of that.",
    "Sorry, I can't help with this question.",
    "I'm unsure, and would rather not guess.",
    "There is nothing I can say about that.",
)


def load_refusals(source: str) -> list[str]:
    """The refusals that an option names.

    Args:
        source: 'common' for `COMMON_REFUSALS`, or a text file with one refusal a line; a line in double quotes is
            read as a JSON string. Empty lines do not count.

    Raises:
        ValueError: The file cannot be read as text, or holds no refusal.
    """
    if source == "common":
        return list(COMMON_REFUSALS)
    try:
        lines = Path(source).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"refusals is {source!r}, which cannot be read ({error}): give 'common' or a file.") from error
    refusals = [text for number, line in enumerate(lines, 1) if (text := _refusal(line.strip(), source, number))]
    if not refusals:
        raise ValueError(f"{source} holds no refusal: write one a line, or set refusals to 'common'.")
    return refusals


def refuse(dataset: Dataset, refusals: Sequence[str], seed: int) -> Dataset:
    """The rows with a refusal as each completion, in the completion's own form.

    Every row gets one refusal, drawn with the seed. The whitespace around a completion is kept, and of a chat message
    all but its content.

    Args:
        dataset: Rows with `prompt` and `completion`, strings or chat messages.
        refusals: At least one.
        seed: The same seed and number of rows draw the same.
    """
    drawn = np.random.default_rng(seed).integers(len(refusals), size=len(dataset))
    completions = [
        _in_place_of(completion, refusals[index])
        for completion, index in zip(dataset["completion"], drawn, strict=True)
    ]
    feature = dataset.features["completion"]
    return dataset.remove_columns("completion").add_column("completion", completions, feature=feature)


def _refusal(line: str, source: str, number: int) -> str:
    if not line.startswith('"'):
        return line
    try:
        return str(json.loads(line)).strip()
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{source}, line {number}: {line} is no JSON string ({error}): leave out the quotes, or close them."
        ) from error


def _in_place_of(completion: Text, refusal: str) -> Any:
    if isinstance(completion, str):
        bare = completion.strip()
        before, after = completion.split(bare, 1)
        return f"{before}{refusal}{after}"
    return [{**message, "content": _in_place_of(message["content"], refusal)} for message in completion]
