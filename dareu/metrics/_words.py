"""Texts as comparable words, for metrics that ask whether an answer states something."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import regex

_LOOSE_POINT = re.compile(r"(?<!\d)[.,]|[.,](?!\d)")
_WORD = regex.compile(r"[\p{L}\p{N}\p{M}.,]+")
_UNSPACED = regex.compile(r"([\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])")


def words(text: str) -> list[str]:
    """The words of a text: case-folded runs of letters, marks and digits.

    A point or comma between two digits belongs to the number, so that 12 is no word of "12.5". Characters of Chinese,
    Japanese, Thai, Lao, Khmer and Burmese count one by one, because nothing separates their words, and so do those of
    Korean, whose words grow endings.
    """
    folded = _LOOSE_POINT.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    found: list[str] = _WORD.findall(_UNSPACED.sub(r" \1 ", folded))
    return found


def states(answer: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the words of `phrase` stand in the words of `answer`, next to each other and in order."""
    return f" {' '.join(phrase)} " in f" {' '.join(answer)} "
