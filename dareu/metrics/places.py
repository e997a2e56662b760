"""Where in a text phrases are stated, by the same rules as `fact_recall`: for marking them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import regex

from dareu.data.words import folded, plain, words

_CLUSTER = regex.compile(r"\X")


class Place(NamedTuple):
    """A stated phrase: `text[start:end]`, as the text spells it."""

    start: int
    end: int
    phrase: str


class Phrases:
    """Phrases to look for in many texts.

    Args:
        phrases: Words or runs of words; those without a letter or digit are passed over.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_first: defaultdict[str, list[tuple[list[str], str]]] = defaultdict(list)
        for phrase in dict.fromkeys(phrases):
            if said := words(phrase):
                self._by_first[said[0]].append((said, phrase))

    def places(self, text: str) -> list[Place]:
        """Where the phrases stand in a text, in its order; where several begin with one word, the longest."""
        if not self._by_first or self._by_first.keys().isdisjoint(words(text)):
            return []
        spans = _word_spans(text)
        said = [word for word, _, _ in spans]
        found: list[Place] = []
        for number, word in enumerate(said):
            stated = [
                (len(phrase), name)
                for phrase, name in self._by_first.get(word, ())
                if said[number : number + len(phrase)] == phrase
            ]
            if stated:
                length, name = max(stated, key=lambda each: each[0])
                found.append(Place(spans[number][1], spans[number + length - 1][2], name))
        return found


def _word_spans(text: str) -> list[tuple[str, int, int]]:
    """The words of a text as `words` gives them, each with where it begins and ends in the text as it is."""
    parts: list[str] = []
    origin: list[tuple[int, int]] = []
    if text.isascii():  # as most answers are: each character stands for itself
        parts, origin = [text.lower()], [(at, at + 1) for at in range(len(text))]
    else:
        kept = [at for at, character in enumerate(text) if plain(character)]  # what is left out splits no cluster
        for match in _CLUSTER.finditer("".join(text[at] for at in kept)):
            part = folded(match.group())
            parts.append(part)
            origin += [(kept[match.start()], kept[match.end() - 1] + 1)] * len(part)
    whole, begin = "".join(parts), 0
    spans = []
    for word in words(text):
        start = whole.find(word, begin)
        if start < 0:  # letters that only compose across clusters: nothing is marked from here on
            break
        begin = start + len(word)
        spans.append((word, origin[start][0], origin[begin - 1][1]))
    return spans
