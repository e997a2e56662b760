"""ROUGE-L recall of answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rouge_score import rouge_scorer

from dareu.metrics._metric import Metric
from dareu.metrics._rows import check_lengths

logger = logging.getLogger(__name__)


def rouge_l_recall(answers: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Share of each reference's words that the answer holds in the same order (longest common subsequence).

    TOFU's setting: `rouge_score`'s rougeL recall with its Porter stemmer. Its words are runs of a-z and 0-9,
    so other letters count as spaces; a reference without any scores 0, and a warning says how many there are.

    Args:
        answers: n answers.
        references: n gold answers.

    Returns:
        Recalls in [0, 1], (n,).

    Raises:
        ValueError: The lists differ in length.
    """
    check_lengths(answers=answers, references=references)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    unscorable = sum(not any(c.isascii() and c.isalnum() for c in text.lower()) for text in references)
    if unscorable:
        logger.warning("%d references have no letter a-z and no digit: ROUGE gives them 0.", unscorable)
    recalls = [
        scorer.score(reference, answer)["rougeL"].recall for answer, reference in zip(answers, references, strict=True)
    ]
    return np.array(recalls, dtype=np.float64)


def _numbers(split: str, answers: Sequence[str], golds: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    return {f"{split}_rouge": rouge_l_recall(answers, golds)}


ROUGE = Metric(_numbers, ("forget", "retain", "test"), ("forget_rouge", "retain_rouge"))
