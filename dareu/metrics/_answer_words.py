"""How much a model says."""

from __future__ import annotations

from collections.abc import Sequence

from dareu.metrics._metric import Metric


def _numbers(split: str, answers: Sequence[str]) -> dict[str, list[int]]:
    return {f"{split}_answer_words": [len(answer.split()) for answer in answers]}


ANSWER_WORDS = Metric(_numbers)
