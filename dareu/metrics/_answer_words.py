"""How much a model says."""

from __future__ import annotations

from collections.abc import Sequence

from dareu.data.words import has_unspaced, words
from dareu.metrics._metric import Metric


def _length(answer: str) -> int:
    """What stands between blanks; where a script writes none, its words."""
    return sum(len(words(part)) if has_unspaced(part) else 1 for part in answer.split())


def _numbers(split: str, answers: Sequence[str]) -> dict[str, list[int]]:
    return {f"{split}_answer_words": [_length(answer) for answer in answers]}


ANSWER_WORDS = Metric(_numbers)
