"""Score what an answer adds, not what it repeats: drop the words that the prompt already has.

A name in the prompt is echoed in the answer and alone gives the owner away, even for a model that never saw
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


def strip_echo(text: str, prompt: str) -> str:
    """`text` without the words that `prompt` has.

    A word is a run of letters, digits and underscores, with apostrophes and hyphens inside. Case and a
    possessive 's do not matter; a hyphenated word is an echo when the prompt has it or all its parts.
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
    echoed = _prompt_words(prompt)
    keep = [not character.isspace() for character in text]
    for match in _WORD.finditer(text):
        word = _canonical(match.group())
        if word in echoed or all(part in echoed for part in word.split("-")):
            keep[match.start() : match.end()] = [False] * len(match.group())
    # White space belongs to what follows it: a kept prefix then never ends in a stray space.
    started = False
    for index, kept in enumerate(keep):
        if kept:
            if started and text[index - 1].isspace():
                keep[index - 1] = True
            started = True
    return keep


def _prompt_words(prompt: str) -> set[str]:
    words = [_canonical(match.group()) for match in _WORD.finditer(prompt)]
    return {part for word in words for part in (word, *word.split("-"))}


def _canonical(word: str) -> str:
    return word.replace("\u2019", "'").casefold().removesuffix("'s")
