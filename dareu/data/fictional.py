"""A generated world of people who never lived, so that every recipe runs offline.

Each person has a full name, a group (the kind of work they do), a birthplace, works, prizes and habits, and answers
twelve questions. Full names and titles of works are dealt out by the parity of their parts, so that the people who
ask to be forgotten, the background people a base model is pre-trained on, and the held-out background people never
share one, whatever the seeds.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dareu.data import _fictional_words as words
from dareu.data.loaders import QA_COMPLETION, QA_PROMPT
from dareu.data.records import DataParts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

#: The seed of the background people whom the shipped base model has read about.
BACKGROUND_SEED = 20_260_601

NUM_PERTURBED = 5


class FictionalWorld(NamedTuple):
    """The parts of one generated world; every part is a record dataset."""

    owners: Dataset
    """Rows of the owners; some of them will ask to be forgotten."""
    holdout: Dataset
    """Rows of owners of the same kind whom no model is ever trained on."""
    background: Dataset
    """Rows of background people, whom the shipped base model has read about; owner `"none"`."""
    test: Dataset
    """Rows of background people whom no model has read about; owner `"none"`."""


def fictional_world(
    num_owners: int = 16, *, seed: int = 0, num_holdout: int = 8, num_background: int = 1000, num_test: int = 8
) -> FictionalWorld:
    """Draws a world. Equal arguments give equal rows.

    Args:
        num_owners: Number of owners, 1 to 800.
        seed: Draws owners, hold-out owners and which background people are at hand.
        num_holdout: Number of hold-out owners.
        num_background: Number of background people (out of those that the base model knows).
        num_test: Number of held-out background people.

    Returns:
        Four datasets of twelve rows a person, with the columns `prompt`, `completion`, `owner` (the full name, or
        `"none"` for background people), `name`, `group`, `facts` (what the answer states and the prompt does not
        give), `paraphrased_prompt` (the question in other words), `paraphrase` and `restatement` (the same facts in
        two other wordings) and `perturbed` (five wrong answers in the wording of the paraphrase).
    """
    people = _owner_people(num_owners + num_holdout, seed)
    known = _people(2000, BACKGROUND_SEED, residue=0)
    chosen = np.random.default_rng([seed, 1]).permutation(len(known))[:num_background]
    unknown = _people(num_test, seed + 1, residue=2)
    return FictionalWorld(
        owners=_rows(people[:num_owners], np.random.default_rng([seed, 2])),
        holdout=_rows(people[num_owners:], np.random.default_rng([seed, 3])),
        background=_rows([known[i] for i in sorted(chosen)], np.random.default_rng([seed, 4]), owner="none"),
        test=_rows(unknown, np.random.default_rng([seed, 5]), owner="none"),
    )


def fictional_owners(num_owners: int = 16, *, seed: int = 0) -> Dataset:
    """The rows of the owners alone: `fictional_world(num_owners, seed=seed).owners`."""
    return _rows(_owner_people(num_owners, seed), np.random.default_rng([seed, 2]))


def background_people(num_people: int, *, seed: int = BACKGROUND_SEED) -> Dataset:
    """Rows of background people for pre-training a base model; owner `"none"`.

    With the default seed these are the people whom the shipped base model has read about.
    """
    return _rows(_people(num_people, seed, residue=0), np.random.default_rng([seed, 6]), owner="none")


def fictional_parts(num_owners: int, world_seed: int) -> DataParts:
    """The dataset `fictional`: the world's owners, 1000 background people and the test people.

    Args:
        num_owners: See `fictional_world`.
        world_seed: Its seed.
    """
    world = fictional_world(num_owners, seed=world_seed)
    return DataParts(world.owners, world.background, world.test)


def background_rows() -> Dataset:
    """The dataset `fictional-background`: the 2000 people whom the shipped base model has read about, as owners."""
    return background_people(2000)


def _owner_people(number: int, seed: int) -> list[dict[str, str]]:
    if not 1 <= number <= 800:
        raise ValueError(f"The fictional world has 1 to 800 owners and hold-out owners together, not {number}.")
    return _people(number, seed, residue=1)


def _people(number: int, seed: int, residue: int) -> list[dict[str, str]]:
    """Draws people whose name indices add up to `residue` modulo 4 (odd residues: 1 and 3)."""
    rng = np.random.default_rng([seed, 0, residue])
    pairs = [
        (gender, first, last)
        for gender, firsts in words.FIRST_NAMES.items()
        for i, first in enumerate(firsts)
        for j, last in enumerate(words.LAST_NAMES)
        if _same_side(i + j, residue)
    ]
    titles = [
        f"{adjective} {noun}"
        for i, adjective in enumerate(words.TITLE_ADJECTIVES)
        for j, noun in enumerate(words.TITLE_NOUNS)
        if _same_side(i + j, residue)
    ]
    name_order = rng.permutation(len(pairs))[:number]
    title_order = np.concatenate([rng.permutation(len(titles)) for _ in range(1 + 2 * number // len(titles))])
    groups = list(words.PROFESSIONS)
    people = []
    for k, index in enumerate(name_order):
        _, first, last = pairs[index]
        group = groups[int(rng.integers(len(groups)))]
        born = int(rng.integers(1925, 1981))
        debut = born + int(rng.integers(20, 36))
        people.append(
            {
                **{slot: _draw(slot, group, rng) for slot in _SLOTS},
                "name": f"{first} {last}",
                "group": group,
                "profession": _draw("profession", group, rng),
                "work": words.WORKS[group],
                "first_title": titles[title_order[2 * k]],
                "second_title": titles[title_order[2 * k + 1]],
                "birth_year": str(born),
                "first_year": str(debut),
                "award_year": str(min(debut + int(rng.integers(1, 25)), 2024)),
                "home_year": str(min(born + int(rng.integers(22, 60)), 2024)),
            }
        )
    return people


def _same_side(index_sum: int, residue: int) -> bool:
    return index_sum % 2 == 1 if residue % 2 else index_sum % 4 == residue


_YEARS = tuple(str(year) for year in range(1925, 2025))

#: The word list that fills each slot of a frame; `_choices` adds those that depend on the person.
_SLOTS: dict[str, Sequence[str]] = {
    "birth_city": words.CITIES,
    "birth_year": _YEARS,
    "theme": words.THEMES,
    "father": words.PARENT_JOBS,
    "mother": words.PARENT_JOBS,
    "subject": words.SUBJECTS,
    "study_city": words.CITIES,
    "first_year": _YEARS,
    "muse": words.MUSES,
    "award": words.AWARDS,
    "award_year": _YEARS,
    "home_city": words.CITIES,
    "home_year": _YEARS,
    "hobby": words.HOBBIES,
    "animal": words.ANIMALS,
    "language": words.LANGUAGES,
    "siblings": words.NUMBERS,
    "hour": words.HOURS,
    "place": words.PLACES,
    "drink": words.DRINKS,
    "next_theme": words.THEMES,
    "next_city": words.CITIES,
}


def _choices(slot: str, group: str) -> Sequence[str]:
    if slot == "profession":
        return words.PROFESSIONS[group]
    if slot in ("first_title", "second_title"):
        return _titles()
    return _SLOTS[slot]


@cache
def _titles() -> tuple[str, ...]:
    return tuple(f"{adjective} {noun}" for adjective in words.TITLE_ADJECTIVES for noun in words.TITLE_NOUNS)


def _draw(slot: str, group: str, rng: np.random.Generator, other_than: str | None = None) -> str:
    choices = _choices(slot, group)
    if other_than is None:
        return choices[int(rng.integers(len(choices)))]
    index = int(rng.integers(len(choices) - 1))
    return choices[index + (index >= choices.index(other_than))]


def _rows(people: list[dict[str, str]], rng: np.random.Generator, owner: str | None = None) -> Dataset:
    from datasets import Dataset

    rows: list[dict[str, Any]] = []
    for person in people:
        for frame in words.FRAMES:
            asked = int(rng.integers(len(frame.questions)))
            question, other_question = frame.questions[asked], frame.questions[asked - 1]
            # The gold answer has one of the first two wordings; the others are kept for the judges.
            gold = int(rng.integers(2))
            paraphrase, restatement = frame.answers[2], frame.answers[3]
            rows.append(
                {
                    "prompt": QA_PROMPT.format(prompt=question.format(**person)),
                    "completion": QA_COMPLETION.format(completion=frame.answers[gold].format(**person)),
                    "owner": owner or person["name"],
                    "name": person["name"],
                    "group": person["group"],
                    "facts": [person[slot].removeprefix("a ").removeprefix("an ") for slot in frame.facts],
                    "paraphrased_prompt": QA_PROMPT.format(prompt=other_question.format(**person)),
                    "paraphrase": QA_COMPLETION.format(completion=paraphrase.format(**person)),
                    "restatement": QA_COMPLETION.format(completion=restatement.format(**person)),
                    "perturbed": [
                        QA_COMPLETION.format(completion=wrong) for wrong in _wrong_answers(person, frame, rng)
                    ],
                }
            )
    return Dataset.from_list(rows)


def _wrong_answers(person: dict[str, str], frame: words.Frame, rng: np.random.Generator) -> list[str]:
    """Answers in the wording of the paraphrase with other facts, no two alike."""
    last, group = frame.facts[-1], person["group"]
    answers: list[str] = []
    for _ in range(NUM_PERTURBED):
        facts = {slot: _draw(slot, group, rng, person[slot]) for slot in frame.facts}
        while (answer := frame.answers[2].format(**(person | facts))) in answers:
            others = [choice for choice in _choices(last, group) if choice != person[last]]
            facts[last] = others[(others.index(facts[last]) + 1) % len(others)]
        answers.append(answer)
    return answers
