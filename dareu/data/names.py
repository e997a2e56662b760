"""Which name a question and its answer share, for data that comes without a column of names."""

from __future__ import annotations

import re
import unicodedata

from dareu.data.words import plain

_WORD = re.compile(r"[^\W\d_]+")
# A full stop after one or two letters is an initial's or a title's ("J.", "Dr."), not a sentence's.
_SENTENCE_START = re.compile(r"^\W*|(?:[!?:]|\w{3}\.)\W*\s\W*", re.MULTILINE)


def shared_name(prompt: str, answer: str) -> set[str]:
    """The words, case-folded, that are capitalised in both, and in one of them elsewhere than at a sentence's start.

    Any other proper name that the two share is taken for part of the name.

    >>> sorted(shared_name("Where was Ada Moor born?", "Ada Moor was born in Bern."))
    ['ada', 'moor']
    """
    in_prompt, in_answer = _capitalised(prompt), _capitalised(answer)
    # A word that only ever opens sentences is capitalised for that alone ("What", "The").
    return {word for word in in_prompt.keys() & in_answer if in_prompt[word] or in_answer[word]}


def holds_name(text: str, name: set[str]) -> bool:
    """Whether the text holds all words of a name, as `shared_name` gives them; of none, it does."""
    return name <= {word.casefold() for word in _WORD.findall(_composed(text))}


def _capitalised(text: str) -> dict[str, bool]:
    """Capitalised words of two letters or more, case-folded -> whether one stands inside a sentence."""
    text = _composed(text)
    starts = {match.end() for match in _SENTENCE_START.finditer(text)}
    inside: dict[str, bool] = {}
    for match in _WORD.finditer(text):
        word = match.group()
        if len(word) > 1 and word[0].isupper():
            folded = word.casefold()
            inside[folded] = inside.get(folded, False) or match.start() not in starts
    return inside


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", plain(text))
