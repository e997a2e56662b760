"""Texts cut where an answer states a fact or the name of somebody else."""

from __future__ import annotations

from typing import NamedTuple

import regex

from dareu.metrics.places import Phrases, Place

_LETTERS = regex.compile(r"\p{L}{2}")


class Segment(NamedTuple):
    """A piece of a text; `kind` is "fact", "blame", or "" of what is neither."""

    kind: str
    text: str


class Marked(NamedTuple):
    """A text in segments, and what was marked in it."""

    segments: list[Segment]
    facts: list[str]
    blamed: list[str]


def names_of(owners: list[str]) -> Phrases:
    """The owners that a text can name; "none", numbers and identifiers with digits or underscores are no names."""
    return Phrases(
        owner for owner in owners if owner != "none" and _LETTERS.search(owner) and not regex.search(r"[_\d]", owner)
    )


def mark(text: str, facts: Phrases, names: Phrases, known: set[str]) -> Marked:
    """Marks what a text states.

    Args:
        text: An answer.
        facts: Of the gold answer.
        names: Of all owners.
        known: Names that are no blame: the row's own owner, and whoever the question or the gold answer names.
    """
    stated = facts.places(text)
    blamed = [place for place in names.places(text) if place.phrase not in known]
    segments, end = [], 0
    for place, kind in _apart([(place, "blame") for place in blamed] + [(place, "fact") for place in stated]):
        segments.append(Segment("", text[end : place.start]))
        segments.append(Segment(kind, text[place.start : place.end]))
        end = place.end
    segments.append(Segment("", text[end:]))
    return Marked(
        [segment for segment in segments if segment.text],
        list(dict.fromkeys(place.phrase for place in stated)),
        list(dict.fromkeys(place.phrase for place in blamed)),
    )


def _apart(places: list[tuple[Place, str]]) -> list[tuple[Place, str]]:
    """The places in order, without those that overlap one before."""
    kept: list[tuple[Place, str]] = []
    for place, kind in sorted(places, key=lambda each: (each[0].start, -each[0].end)):
        if not kept or place.start >= kept[-1][0].end:
            kept.append((place, kind))
    return kept
