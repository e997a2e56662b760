"""Which words of an answer are its facts, for data that comes without a list of them."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import regex

from dareu.data.words import INVISIBLE, UNSPACED, folded

_LETTER = rf"[[\w\p{{No}}]--[{UNSPACED}\p{{M}}{INVISIBLE}]]"
_RUN = rf"{_LETTER}[[\w\p{{No}}{INVISIBLE}]--{UNSPACED}]*"
_WORD = regex.compile(rf"(?V1){_RUN}(?:['\u2019-]{_RUN})*")
_POSSESSIVE = re.compile(r"['\u2019]s$", re.IGNORECASE)
_NUMBER = re.compile(r"\d\d")


def distinctive_words(
    prompts: Sequence[str], answers: Sequence[str], owners: Sequence[str], *, common: float = 0.05
) -> list[list[str]]:
    """The words that each answer states on its own account.

    A word is a run of letters, marks and digits, joined by hyphens and apostrophes, without a final 's, compared
    without case, see `dareu.data.words.folded`. Scripts that put no blanks between words (Chinese, Japanese, Thai, Lao,
    Khmer, Burmese) are passed over: what is a word in them is not known. A word of an answer is kept where

    * it is longer than one character,
    * the answer's own prompt does not hold it, and
    * it occurs in the answers of at most the share `common` of the other owners, or holds two digits in a row
      (a year or another number, which says something whoever else shares it).

    Args:
        prompts: n prompts.
        answers: n answers.
        owners: n owners.
        common: Share of the other owners in [0, 1] above which a word is common.

    Returns:
        n lists of words as the answer spells them first, in its order, each once.
    """
    owners_with: defaultdict[str, set[str]] = defaultdict(set)
    for answer, owner in zip(answers, owners, strict=True):
        for word in _words(answer):
            owners_with[word].add(owner)
    most = common * (len(set(owners)) - 1)
    found = []
    for prompt, answer, owner in zip(prompts, answers, owners, strict=True):
        given = _words(prompt)
        found.append(
            [
                spelled
                for word, spelled in _words(answer).items()
                if len(word) > 1
                and word not in given
                and (len(owners_with[word] - {owner}) <= most or _NUMBER.search(word))
            ]
        )
    return found


def _words(text: str) -> dict[str, str]:
    """The words of a text without case -> as first spelled."""
    words: dict[str, str] = {}
    for match in _WORD.findall(unicodedata.normalize("NFC", text)):
        spelled = _POSSESSIVE.sub("", match)
        words.setdefault(folded(spelled), spelled)
    return words
