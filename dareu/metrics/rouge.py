"""ROUGE-L recall of answers."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rouge_score import rouge_scorer

from dareu.metrics._metric import Metric
from dareu.metrics._rows import check_lengths
from dareu.metrics._words import words

logger = logging.getLogger(__name__)


def rouge_l_recall(answers: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Share of each reference's words that the answer holds in the same order (longest common subsequence).

    TOFU's setting: `rouge_score`'s rougeL recall with its Porter stemmer, whose words are runs of a-z and 0-9. A
    reference most of whose letters are others is read in the words of its script instead, see `words`, unstemmed.

    Args:
        answers: n answers.
        references: n gold answers.

    Returns:
        Recalls in [0, 1], NaN where a reference has no letter or digit, (n,).

    Raises:
        ValueError: The lists differ in length.
    """
    check_lengths(answers=answers, references=references)
    latin = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    other = rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Words())
    recalls = np.full(len(answers), np.nan)
    for row, pair in enumerate(zip(answers, references, strict=True)):
        answer, reference = (unicodedata.normalize("NFC", text) for text in pair)
        if words(reference):
            scorer = latin if _is_latin(reference) else other
            recalls[row] = scorer.score(reference, answer)["rougeL"].recall
    if unscorable := int(np.isnan(recalls).sum()):
        logger.warning("%d references have no letter and no digit, and no ROUGE.", unscorable)
    return recalls


class _Words:
    """A tokenizer of `rouge_score`."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _is_latin(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    said = any(character.isascii() and character.isalnum() for character in text)
    return said and 2 * sum(map(str.isascii, letters)) >= len(letters)


def _numbers(split: str, answers: Sequence[str], golds: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    return {f"{split}_rouge": rouge_l_recall(answers, golds)}


ROUGE = Metric(_numbers, ("forget", "retain", "test"), ("forget_rouge", "retain_rouge"))
