"""What models answered to each row, side by side, with what is stated in it marked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dareu.data.facts import distinctive_words
from dareu.data.words import has_unspaced
from dareu.metrics.places import Phrases
from dareu.report._gather import Family
from dareu.report._marks import Marked, Segment, mark, names_of

SPLITS = {"forget": "to forget", "retain": "retained", "test": "test"}
NOBODY = "none"


class Answer(NamedTuple):
    """What one model answered."""

    model: str
    role: str
    marked: Marked


@dataclass
class Asked:
    """A row: what was asked about whom, what is true, and what each model answered."""

    family: int
    split: str
    owner: str
    prompt: str
    gold: list[Segment]
    facts: int
    answers: list[Answer]

    @property
    def told(self) -> bool:
        """Whether an unlearned model states a fact."""
        return any(answer.marked.facts for answer in self.answers if answer.role == "unlearned")

    @property
    def blames(self) -> bool:
        """Whether an unlearned model names somebody else."""
        return any(answer.marked.blamed for answer in self.answers if answer.role == "unlearned")


class Answers(NamedTuple):
    """All rows, and what the page needs to filter them."""

    rows: list[Asked]
    owners: list[tuple[str, str, int]]
    """Owner, which rows they are of, and how many; those to forget first."""
    families: list[str]
    splits: list[tuple[str, str]]
    begins: str
    """What every prompt begins with, and is not repeated."""
    ends: str
    """What every prompt ends with."""
    listed: bool
    """Whether the facts come from a list of the data; otherwise they are the words that a gold answer states alone."""
    unspaced: bool
    """Whether such words are missing, of gold answers in a script without blanks between words."""


def answers_of(families: Sequence[Family]) -> Answers:
    """The rows of all families with their answers, those to forget first, by owner."""
    rows: list[Asked] = []
    listed = True
    for number, family in enumerate(families):
        of_family, in_list = _of_family(number, family)
        rows += of_family
        listed &= in_list
    order = list(SPLITS)
    place = {split: order.index(split) if split in order else len(order) for split in {row.split for row in rows}}
    rows.sort(key=lambda row: (row.family, place[row.split]))  # stable: within an owner as the data has them
    counts = Counter((row.split, row.owner) for row in rows if row.owner)
    owners = [(owner, SPLITS.get(split, split), count) for (split, owner), count in counts.items()]
    splits = [(split, SPLITS.get(split, split)) for split in sorted(place, key=lambda split: place[split])]
    begins, ends = _common([row.prompt for row in rows])
    for row in rows:
        row.prompt = row.prompt[len(begins) : len(row.prompt) - len(ends)].strip()
    names = [family.name for family in families]
    unspaced = not listed and any(has_unspaced(segment.text) for row in rows for segment in row.gold)
    return Answers(rows, owners, names, splits, begins.strip(), ends.strip(), listed, unspaced)


def _of_family(number: int, family: Family) -> tuple[list[Asked], bool]:
    """The rows that any model of a family was measured on, and whether the data list their facts."""
    known: dict[tuple[str, str, int], dict[str, Any]] = {}
    answered: defaultdict[tuple[str, str, int], dict[int, str]] = defaultdict(dict)
    for place, model in enumerate(family.models):
        seen: Counter[tuple[str, str]] = Counter()
        for row in model.rows:
            asked = (row["split"], row["prompt"])
            key = (*asked, seen[asked])
            seen[asked] += 1
            known.setdefault(key, row)
            if row.get("answer") is not None:
                answered[key][place] = row["answer"]
    rows = {key: row for key, row in known.items() if answered[key]}
    facts, listed = _facts(list(rows.values()))
    owners = list(dict.fromkeys([*family.owners, *(row["owner"] for row in rows.values() if row["owner"])]))
    names = names_of(owners)
    found = []
    for (key, row), of_row in zip(rows.items(), facts, strict=True):
        phrases, gold = Phrases(of_row), row.get("completion") or ""
        said = {row["owner"], *(place.phrase for text in (row["prompt"], gold) for place in names.places(text))}
        answers = [
            Answer(model.name, model.role, mark(answered[key][place], phrases, names, said))
            for place, model in enumerate(family.models)
            if place in answered[key]
        ]
        segments = mark(gold.strip(), phrases, Phrases(()), set()).segments
        found.append(Asked(number, row["split"], row["owner"], row["prompt"], segments, len(of_row), answers))
    return found, listed


def _facts(rows: list[dict[str, Any]]) -> tuple[list[list[str]], bool]:
    """Each row's facts beyond its prompt: of the data's list, or where there is none the words that it states alone."""
    if any(row.get("facts") is not None for row in rows):
        return [_beyond(row.get("facts") or [], row["prompt"]) for row in rows], True
    columns = ([str(row.get(name) or "") for row in rows] for name in ("prompt", "completion", "owner"))
    return distinctive_words(*columns), False


def _beyond(facts: list[str], prompt: str) -> list[str]:
    given = {place.phrase for place in Phrases(facts).places(prompt)}
    return [fact for fact in facts if fact not in given]


def _common(prompts: Sequence[str]) -> tuple[str, str]:
    """What all prompts begin and end with, in whole words."""
    if len(set(prompts)) < 2:
        return "", ""
    begins = _begin(prompts)
    ends = _begin([prompt[len(begins) :][::-1] for prompt in prompts])[::-1]
    return begins, ends


def _begin(texts: Sequence[str]) -> str:
    """What all texts begin with, up to its last blank."""
    first, last = min(texts), max(texts)  # what these two share, all between them share
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: max(first.rfind(blank, 0, same) for blank in " \n") + 1]
