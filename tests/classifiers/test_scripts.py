"""Judges and metrics know words by one rule, though neither imports the other's."""

import sys

import regex

from dareu.classifiers import _scripts
from dareu.data import words

EVERY = "".join(map(chr, range(sys.maxunicode + 1)))


def test_spellings_are_alike_to_both() -> None:
    for text in (" ".join(EVERY), "e\u00ad\u0301 \ufb2a ١٫٥"):
        assert _scripts.plain(text) == words.plain(text)
        assert _scripts.folded(text) == words.folded(text)


def test_the_same_scripts_put_no_blanks_between_words() -> None:
    unspaced = rf"(?V1)[[{_scripts.EAST_ASIAN}{_scripts.SOUTH_EAST_ASIAN}]--\p{{Hangul}}]"
    assert regex.findall(unspaced, EVERY) == regex.findall(rf"(?V1){words.UNSPACED}", EVERY)
    assert _scripts.INVISIBLE == words.INVISIBLE
