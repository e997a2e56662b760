"""The fictional world: who may never meet, what every row holds, and that seeds repeat."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from dareu.data import _fictional_words as words
from dareu.data import check_records
from dareu.data.fictional import (
    BACKGROUND_SEED,
    FictionalWorld,
    _draw,
    _owner_people,
    _people,
    _rows,
    background_people,
    fictional_owners,
    fictional_world,
)

Person = dict[str, str]
TITLES = ("first_title", "second_title")
WRONG_ARTICLE = re.compile(r"\ba [aeiou]|\ban [^aeiou]", re.IGNORECASE)


def names(people: list[Person]) -> set[str]:
    return {person["name"] for person in people}


def titles(people: list[Person]) -> list[str]:
    return [person[slot] for person in people for slot in TITLES]


@pytest.fixture(scope="module")
def world() -> FictionalWorld:
    return fictional_world(200, seed=5, num_holdout=8, num_background=60, num_test=8)


@pytest.fixture(scope="module")
def rows(world: FictionalWorld) -> list[dict[str, Any]]:
    return [row for part in world for row in part]


@pytest.fixture(scope="module")
def read_by_the_base() -> list[Person]:
    return _people(2000, BACKGROUND_SEED, residue=0)


@pytest.mark.parametrize("seed", range(24))
def test_owners_share_no_name_and_no_title_with_background_people(seed: int, read_by_the_base: list[Person]) -> None:
    owners, test = _owner_people(208, seed), _people(8, seed + 1, residue=2)
    assert len(names(owners)) == 208 and len(set(titles(owners))) == 416
    assert not names(owners) & names(read_by_the_base)
    assert not set(titles(owners)) & set(titles(read_by_the_base))
    assert not names(owners) & names(test) and not set(titles(owners)) & set(titles(test))
    assert not names(test) & names(read_by_the_base)


def test_no_seed_at_all_can_bring_them_together() -> None:
    # So many people that every name and title of a side is dealt out.
    sides = [_people(10_000, 0, residue) for residue in (0, 1, 2)]
    pairs = sum(map(len, words.FIRST_NAMES.values())) * len(words.LAST_NAMES)
    assert sum(len(side) for side in sides) == pytest.approx(pairs, abs=len(words.LAST_NAMES))
    every_title = len(words.TITLE_ADJECTIVES) * len(words.TITLE_NOUNS)
    assert len({title for side in sides for title in titles(side)}) == every_title
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not names(sides[one]) & names(sides[other])
        assert not set(titles(sides[one])) & set(titles(sides[other]))


def test_the_most_owners_there_can_be_have_names_and_titles_of_their_own() -> None:
    people = _owner_people(800, seed=1)
    assert len(names(people)) == 800 and len(set(titles(people))) == 1600


@pytest.mark.parametrize("number", [0, 801])
def test_too_few_or_too_many_owners_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 800 owners and hold-out owners together, not {number}"):
        fictional_owners(number)


def test_hold_out_owners_count_towards_the_limit() -> None:
    with pytest.raises(ValueError, match="not 808"):
        fictional_world(800, num_holdout=8)


def test_a_person_has_no_two_answers_to_one_question(world: FictionalWorld) -> None:
    assert len(world.owners) == 200 * len(words.FRAMES) and len(words.FRAMES) >= 10
    for part in (world.owners, world.holdout, world.test, world.background):
        check_records(part)
        counts = np.unique(list(part["name"]), return_counts=True)[1]
        assert (counts == len(words.FRAMES)).all()
        assert len(set(part["prompt"])) == len(part)


def test_owners_own_their_rows_and_background_people_own_nothing(world: FictionalWorld) -> None:
    for part in (world.owners, world.holdout):
        assert list(part["owner"]) == list(part["name"])
    for part in (world.background, world.test):
        assert set(part["owner"]) == {"none"}
    everyone = [set(part["name"]) for part in world]
    assert len(set.union(*everyone)) == sum(map(len, everyone)) == 200 + 8 + 60 + 8
    assert set(world.owners["group"]) == set(words.PROFESSIONS)


def test_the_background_people_of_a_world_are_those_the_base_has_read(
    world: FictionalWorld, read_by_the_base: list[Person]
) -> None:
    known = {person["name"]: person for person in read_by_the_base}
    for row in world.background:
        assert row["name"] in known
        if "born" in row["prompt"] or "birthplace" in row["prompt"]:
            assert row["facts"] == [known[row["name"]]["birth_city"], known[row["name"]]["birth_year"]]
    few = background_people(3)
    assert set(few["owner"]) == {"none"} and set(few["name"]) <= set(known)


def test_answers_have_8_to_30_words_and_hold_the_name(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for text in (row["completion"], row["paraphrase"], row["restatement"], *row["perturbed"]):
            assert 8 <= len(text.split()) <= 30, text
            assert row["name"] in text
            assert text.startswith(" ") and text.endswith(".") and text == f" {text.strip()}"
        assert row["name"] in row["prompt"]


def test_every_wording_of_an_answer_states_every_fact_and_no_prompt_does(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert len(row["facts"]) >= 2
        for fact in row["facts"]:
            stated = re.compile(rf"\b{re.escape(fact)}\b")
            for column in ("completion", "paraphrase", "restatement"):
                assert stated.search(row[column]), (fact, row[column])
            assert not stated.search(row["prompt"]), (fact, row["prompt"])


def test_the_wordings_of_an_answer_differ(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert len({row["completion"], row["paraphrase"], row["restatement"]}) == 3


def test_five_wrong_answers_differ_from_the_right_one_and_from_each_other(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert len(row["perturbed"]) == 5
        assert len({row["paraphrase"], *row["perturbed"]}) == 6, row["perturbed"]


def test_a_wrong_fact_is_never_the_right_one() -> None:
    rng = np.random.default_rng(0)
    assert {_draw("hour", "science", rng, "noon") for _ in range(200)} == set(words.HOURS) - {"noon"}


def test_articles_fit_the_word_behind_them(rows: list[dict[str, Any]]) -> None:
    wrong = {
        match.string[match.start() : match.end() + 12]
        for row in rows
        for text in (row["prompt"], row["completion"], row["paraphrase"], row["restatement"], *row["perturbed"])
        if (match := WRONG_ARTICLE.search(text))
    }
    assert not wrong


@pytest.mark.parametrize(("text", "wrong"), [("of a album", True), ("an novel", True), ("An essay on a quiet", False)])
def test_a_wrong_article_is_found(text: str, wrong: bool) -> None:
    assert bool(WRONG_ARTICLE.search(text)) == wrong


def small(seed: int) -> FictionalWorld:
    return fictional_world(3, seed=seed, num_holdout=2, num_background=4, num_test=2)


def test_equal_seeds_give_equal_rows_and_other_seeds_other_people() -> None:
    first, again, other = small(4), small(4), small(5)
    for one, same, different in zip(first, again, other, strict=True):
        assert one.to_list() == same.to_list()
        assert set(one["name"]) != set(different["name"])


def test_the_global_random_state_is_left_alone() -> None:
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    small(0)
    assert np.random.random() == expected


@pytest.mark.parametrize(
    "alone", [lambda: fictional_owners(3, seed=4), lambda: _rows(_owner_people(3, 4), np.random.default_rng([4, 2]))]
)
def test_owners_alone_are_those_of_the_world(alone: Callable[[], Dataset]) -> None:
    assert alone().to_list() == small(4).owners.to_list()
