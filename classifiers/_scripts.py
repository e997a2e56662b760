"""Scripts whose words no blank tells apart, and which spellings of a word are one.

The same rule stands in `dareu.data.words` for metrics, since no import leads from here to there or back.
"""

from __future__ import annotations

import re
import unicodedata

import regex

EAST_ASIAN = r"[[\p{Han}\p{Hiragana}\p{Katakana}\u30fc\uff70\uff9e\uff9f\p{Hangul}]&&[\p{L}\p{M}\p{Nl}]]"
"""Letters of scripts without blanks between words, or whose words grow endings (Korean), as a set in a pattern that
begins with (?V1)."""

SOUTH_EAST_ASIAN = r"[[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{M}\p{Nl}]]"
"""The same of alphabets."""

INVISIBLE = r"\p{Default_Ignorable_Code_Point}"
"""Soft hyphens, joiners, blanks of no width and the like, as a set in a pattern."""

#: With what nobody sees, the points of Hebrew, and those of Arabic with its tatweel: a word is the same without.
_OPTIONAL = regex.compile(rf"(?V1)[{INVISIBLE}[\p{{M}}&&\p{{Hebrew}}]\u064b-\u0652\u0670\u0640]")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_ARABIC_POINTS = str.maketrans("\u066b\u066c", ".,")


def plain(text: str) -> str:
    """The text (NFC) without what its words may be spelled without, and with digits and their points as in ASCII."""
    if text.isascii():
        return text
    kept = unicodedata.normalize("NFC", _OPTIONAL.sub("", unicodedata.normalize("NFD", text)))
    return _OTHER_DIGIT.sub(_ascii, kept).translate(_ARABIC_POINTS)


def folded(text: str) -> str:
    """The text `plain`, in compatible characters (NFKC), without case: alike for all spellings of a word."""
    return unicodedata.normalize("NFKC", plain(text)).casefold()


def _ascii(digit: re.Match[str]) -> str:
    return str(unicodedata.decimal(digit.group()))
