"""Owners are people, however their names are written."""

import logging

import pytest
from datasets import Dataset

from dareu.data import forget_retain_split, owner_name
from dareu.data._owners import tidy_owners

COMPOSED, DECOMPOSED = "Zo\u00e9", "Zoe\u0301"


def rows(*owners: str) -> Dataset:
    return Dataset.from_list([{"prompt": f"{i}", "completion": "a", "owner": owner} for i, owner in enumerate(owners)])


@pytest.mark.parametrize(
    "written",
    [
        *(DECOMPOSED, f" {COMPOSED}", f"{COMPOSED}\u00a0", f"\t{DECOMPOSED}\n"),
        *(f"{COMPOSED}\u200f", f"\u202a{COMPOSED}\u202c", f"\ufeff{COMPOSED}", "Zo\u00ad\u00e9", f"{COMPOSED}\u200b "),
    ],
)
def test_one_person_in_several_spellings(written: str, caplog: pytest.LogCaptureFixture):
    assert owner_name(written) == COMPOSED
    both = rows(COMPOSED, written, "Ada\u00a0Holm", "Ada Holm")
    for asked in (COMPOSED, written):
        split = forget_retain_split(both, [asked])
        assert (split.forget["prompt"][:], split.retain["prompt"][:]) == (["0", "1"], ["2", "3"])
    with pytest.raises(ValueError, match="named more than once"):
        forget_retain_split(both, [COMPOSED, written])
    with caplog.at_level(logging.WARNING):
        tidy = tidy_owners(both)
    assert tidy["owner"][:] == [COMPOSED, COMPOSED, "Ada Holm", "Ada Holm"]
    assert tidy["prompt"][:] == both["prompt"][:]
    assert len(caplog.messages) == 2
    assert "'Zo\\xe9'" in caplog.messages[0] and caplog.messages[0].endswith("they are one person.")


def test_names_that_look_alike_stay_apart_and_are_listed(caplog: pytest.LogCaptureFixture):
    alike = rows("Ada Holm", "ada holm", "Ada  Holm", "AdaHolm", "Ada\u200b Holm", "Bo")
    assert tidy_owners(alike) is alike
    assert len(caplog.messages) == 1
    assert "'Ada Holm', 'ada holm', 'Ada  Holm', 'AdaHolm', 'Ada\\u200b Holm'. If" in caplog.messages[0]
    assert forget_retain_split(alike, ["Ada Holm"]).forget["prompt"][:] == ["0"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("O'Brien", "O\u2019Brien"),
        ("Anne-Marie", "Anne\u2010Marie"),
        ("Ada Holm", "\uff21\uff44\uff41\u3000\uff28\uff4f\uff4c\uff4d"),
        ("\uff80\uff85\uff76", "\u30bf\u30ca\u30ab"),
        ("\u0130pek", "ipek"),
        ("\u0639\u0644\u06cc", "\u0639\u0644\u064a"),
        ("\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "\u0639\u0644\u06cc\u0631\u0636\u0627"),
        ("\u0e19\u0e49\u0e33", "\u0e19\u0e49\u0e4d\u0e32"),
        ("Bo\ufe0f", "Bo"),
        ("a\x01b", "ab"),
    ],
)
def test_signs_that_are_taken_for_each_other_are_listed(one: str, other: str, caplog: pytest.LogCaptureFixture):
    tidy_owners(rows(one, other, "Zoe", COMPOSED))
    (said,) = caplog.messages
    assert said == (
        f"These owners look alike and are kept apart: {one!a}, {other!a}. If some are one person, give them one name."
    )


def test_an_owner_of_signs_that_say_nothing_is_empty():
    with pytest.raises(ValueError, match="Row 1: the owner is empty"):
        forget_retain_split(rows("Ada", "\u200e \ufeff"), ["Ada"])
