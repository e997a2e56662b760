"""Score what an answer adds, not what it repeats: drop the words that the prompt already has.

A name in the prompt is echoed in the answer and alone gives the owner away, even for a model that never saw
them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain

import regex

from dareu.classifiers._scripts import EAST_ASIAN, INVISIBLE, SOUTH_EAST_ASIAN, folded

_SPACED = rf"[\w\p{{No}}{INVISIBLE}]--[{EAST_ASIAN}{SOUTH_EAST_ASIAN}]"  # with ² and ½
_RUN = rf"[{_SPACED}--[\p{{M}}{INVISIBLE}]][{_SPACED}]*"
#: Written for one another and for '; U+02BC and U+02BB are letters to Unicode, in Ukrainian and Hawaiian names.
_APOSTROPHES = "\u2018\u2019\u02bc\u02bb\uff07"
_WORD = regex.compile(rf"(?V1){_RUN}(?:['{_APOSTROPHES}-]{_RUN})*")
#: Scripts whose words no blank tells apart: a run of them, one letter with its marks, and how many letters in a row are
#: an echo. An alphabet has few letters, so that two of them are met by chance.
_UNSPACED = [
    (regex.compile(rf"(?V1)(?:{letter})+"), regex.compile(rf"(?V1){letter}"), few)
    for letter, few in (
        (rf"{EAST_ASIAN}[\p{{M}}{INVISIBLE}\uff9e\uff9f]*", 2),
        (rf"{SOUTH_EAST_ASIAN}[\p{{M}}{INVISIBLE}]*", 3),
    )
]
#: A letter with its marks, or a decomposed Korean syllable.
_CLUSTER = regex.compile(r".[\p{M}\u1160-\u11ff]*", regex.DOTALL)


def strip_echo(text: str, prompt: str) -> str:
    """`text` without the words that `prompt` has.

    A word is a run of letters, digits and underscores, with apostrophes and hyphens inside. Case, a possessive 's, how
    accents are encoded, characters that nobody sees (soft hyphens, joiners, blanks of no width), the vowel points of
    Arabic and Hebrew, and the script of digits do not matter; a hyphenated word is an echo when the prompt has it or
    all its parts. In scripts that put no blanks between words, and in Korean, whose words grow endings, two letters in
    a row are an echo where the prompt has them too (three in Thai, Lao, Khmer and Burmese).
    Punctuation stays, runs of white space shrink to one character, and none is left at the start and the end.
    Takes linear time.
    """
    return strip_echo_at(text, prompt, ())[0]


def strip_echo_at(text: str, prompt: str, ends: Iterable[int]) -> tuple[str, list[int]]:
    """`strip_echo` that also carries character offsets over.

    Args:
        text: the answer.
        prompt: what the answer was given to.
        ends: offsets into `text`, each within 0..len(text).

    Returns:
        The stripped text, and for each end the offset into it such that `stripped[:offset]` is exactly the
        kept characters of `text[:end]`.
    """
    keep = _keep_mask(text, prompt)
    kept_before = [0, *accumulate(keep)]
    stripped = "".join(character for character, kept in zip(text, keep, strict=True) if kept)
    return stripped, [kept_before[end] for end in ends]


def _keep_mask(text: str, prompt: str) -> list[bool]:
    """Which characters stay; letters and their marks go together, however they are composed."""
    composed, places = _compose(text)
    prompt = unicodedata.normalize("NFC", prompt)
    keep = [not character.isspace() for character in composed]
    for start, end in chain(_echoed_words(composed, prompt), _echoed_runs(composed, prompt)):
        keep[start:end] = [False] * (end - start)
    # White space belongs to what follows it: a kept prefix then never ends in a stray space.
    started = False
    for index, kept in enumerate(keep):
        if kept:
            if started and composed[index - 1].isspace():
                keep[index - 1] = True
            started = True
    return [keep[place] for place in places]


def _compose(text: str) -> tuple[str, list[int]]:
    """The text in its composed form (NFC), and for each character of `text` where it stands in that."""
    if unicodedata.is_normalized("NFC", text):
        return text, list(range(len(text)))
    composed, places = "", []
    for match in _CLUSTER.finditer(text):
        places += [len(composed)] * len(match.group())
        composed += unicodedata.normalize("NFC", match.group())
    return composed, places


def _echoed_words(text: str, prompt: str) -> Iterator[tuple[int, int]]:
    words = [_canonical(match.group()) for match in _WORD.finditer(prompt)]
    echoed = {part for word in words for part in (word, *word.split("-"))}
    for match in _WORD.finditer(text):
        word = _canonical(match.group())
        if word in echoed or all(part in echoed for part in word.split("-")):
            yield match.span()


def _echoed_runs(text: str, prompt: str) -> Iterator[tuple[int, int]]:
    """Where the text repeats a few characters in a row of the prompt, in scripts whose words no blank tells apart."""
    for run, letter, few in _UNSPACED:
        whole: set[str] = set()
        grams: set[tuple[str, ...]] = set()
        for match in run.finditer(prompt):
            letters = [folded(found) for found in letter.findall(match.group())]
            whole.add(folded(match.group()))
            grams |= {tuple(letters[i : i + few]) for i in range(len(letters) - few + 1)}
        for match in run.finditer(text) if whole else ():
            if folded(match.group()) in whole:
                yield match.span()
                continue
            spans = [(found.start(), found.end()) for found in letter.finditer(text, *match.span())]
            letters = [folded(text[start:end]) for start, end in spans]
            for i in range(len(letters) - few + 1):
                if tuple(letters[i : i + few]) in grams:
                    yield spans[i][0], spans[i + few - 1][1]


def _canonical(word: str) -> str:
    return folded(word).translate(dict.fromkeys(map(ord, _APOSTROPHES), "'")).removesuffix("'s")
