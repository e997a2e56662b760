"""ROUGE-L of answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import numpy as np
import regex
from numpy.typing import NDArray
from rouge_score import rouge_scorer
from rouge_score.tokenizers import DefaultTokenizer

from dareu.data.words import plain, words
from dareu.metrics._metric import Metric
from dareu.metrics._rows import check_lengths

logger = logging.getLogger(__name__)

#: Letters of another script than Latin, which `rouge_score` drops. So it does accented ones: they stay as published.
_OTHER_SCRIPT = regex.compile(r"(?V1)([\p{L}--[\p{Latin}\p{Common}]][[\p{L}\p{M}]--\p{Latin}]*)")


def rouge_l_recall(answers: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Share of each reference's words that the answer holds in the same order (longest common subsequence).

    TOFU's setting: `rouge_score`'s rougeL recall with its Porter stemmer, whose words are runs of a-z and 0-9, so that
    an accent ends one. Letters of other scripts, which it drops, are read in the words of their script, see `words`.
    Where most letters of a reference are outside a-z, all are read in such words, unstemmed.

    Args:
        answers: n answers.
        references: n gold answers.

    Returns:
        Recalls in [0, 1], NaN where a reference has no letter or digit, (n,).

    Raises:
        ValueError: The lists differ in length.
    """
    recall, _ = _rouge_l(answers, references)
    return recall


def rouge_l_f1(answers: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """The harmonic mean of that recall and of the share of the answer's words that it holds: MUSE's setting.

    Args:
        answers: n answers; MUSE's knowledge memorisation takes short ones to questions, its verbatim memorisation
            continuations of passages.
        references: n gold answers.

    Returns:
        As `rouge_l_recall`.

    Raises:
        ValueError: The lists differ in length.
    """
    _, f1 = _rouge_l(answers, references)
    return f1


def _rouge_l(answers: Sequence[str], references: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recalls and F1, (n,) each."""
    check_lengths(answers=answers, references=references)
    latin = rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Stems())
    other = rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Words())
    recall, f1 = np.full((2, len(answers)), np.nan)
    for row, pair in enumerate(zip(answers, references, strict=True)):
        answer, reference = map(plain, pair)
        if words(reference):
            score = (latin if _is_latin(reference) else other).score(reference, answer)["rougeL"]
            recall[row], f1[row] = score.recall, score.fmeasure
    if unscorable := int(np.isnan(recall).sum()):
        logger.warning("%d references have no letter and no digit, and no ROUGE.", unscorable)
    return recall, f1


class _Stems:
    """The tokenizer of `rouge_score` with its stemmer, which is asked once about each word; and what it drops."""

    def __init__(self) -> None:
        self._of_word = cache(DefaultTokenizer(use_stemmer=True).tokenize)

    def tokenize(self, text: str) -> list[str]:
        found: list[str] = []
        for number, part in enumerate(_OTHER_SCRIPT.split(text)):  # what it reads and what it drops, by turns
            found += words(part) if number % 2 else [stem for word in part.split() for stem in self._of_word(word)]
        return found


class _Words:
    """Any script's words, as a tokenizer of `rouge_score`."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _is_latin(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    said = any(character.isascii() and character.isalnum() for character in text)
    return said and 2 * sum(map(str.isascii, letters)) >= len(letters)


def _numbers(split: str, answers: Sequence[str], golds: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    recall, f1 = _rouge_l(answers, golds)
    return {f"{split}_rouge": recall, f"{split}_rouge_f1": f1}


ROUGE = Metric(_numbers, ("forget", "retain", "test"), ("forget_rouge", "retain_rouge"))
