"""What a word is, in any script: the rule by which facts, names, ROUGE and lengths are counted.

Classifiers import nothing from here, so that the characters that may be left out, and the scripts without blanks, stand
in `dareu.classifiers._scripts` once more.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import regex

_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc\uff70\uff9e\uff9f\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
UNSPACED = rf"[[{_SCRIPTS}]&&[\p{{L}}\p{{M}}\p{{Nl}}]]"
"""Letters of scripts that put no blanks between words, as a set in a pattern that begins with (?V1)."""

INVISIBLE = r"\p{Default_Ignorable_Code_Point}"
"""Soft hyphens, joiners, blanks of no width and the like, as a set in a pattern."""

#: With what nobody sees, the points of Hebrew, and those of Arabic with its tatweel: a word is the same without.
_OPTIONAL = regex.compile(rf"(?V1)[{INVISIBLE}[\p{{M}}&&\p{{Hebrew}}]\u064b-\u0652\u0670\u0640]")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_ARABIC_POINTS = str.maketrans("\u066b\u066c", ".,")
_LOOSE_POINT = re.compile(r"(?<!\d)[.,]|[.,](?!\d)")
#: The two apostrophes that Unicode calls letters part words as the others do.
_WORD = regex.compile(r"(?V1)[[\p{L}\p{N}\p{M}.,]--[\u02bc\u02bb]]+")
_ALONE = regex.compile(rf"(?V1)({UNSPACED}|[\p{{Hangul}}--\p{{Nd}}])")
_WITHOUT_BLANKS = regex.compile(rf"(?V1){UNSPACED}")


def plain(text: str) -> str:
    """The text (NFC) without what its words may be spelled without, and with digits and their points as in ASCII.

    Left out are characters that nobody sees, such as soft hyphens and joiners, the points of Hebrew, and the vowels and
    the tatweel of Arabic.
    """
    if text.isascii():
        return text
    kept = unicodedata.normalize("NFC", _OPTIONAL.sub("", unicodedata.normalize("NFD", text)))
    return _OTHER_DIGIT.sub(_ascii, kept).translate(_ARABIC_POINTS)


def folded(text: str) -> str:
    """The text `plain`, in compatible characters (NFKC), without case: alike for all spellings of a word."""
    return unicodedata.normalize("NFKC", plain(text)).casefold()


def words(text: str) -> list[str]:
    """The words of a text: runs of letters, marks and digits, `folded`.

    A point or comma between two digits belongs to the number, so that 12 is no word of "12.5". Characters of Chinese,
    Japanese, Thai, Lao, Khmer and Burmese count one by one, because nothing separates their words, and so do those of
    Korean, whose words grow endings.
    """
    found: list[str] = _WORD.findall(_ALONE.sub(r" \1 ", _LOOSE_POINT.sub(" ", folded(text))))
    return found


def has_unspaced(text: str) -> bool:
    """Whether the text has letters of a script that puts no blanks between words."""
    return _WITHOUT_BLANKS.search(text) is not None


def states(answer: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the words of `phrase` stand in the words of `answer`, next to each other and in order."""
    return f" {' '.join(phrase)} " in f" {' '.join(answer)} "


def _ascii(digit: re.Match[str]) -> str:
    return str(unicodedata.decimal(digit.group()))
