import pytest
from hypothesis import given
from hypothesis import strategies as st

from dareu.metrics import fact_recall
from dareu.metrics.places import Phrases


@pytest.mark.parametrize(
    ("text", "phrase", "stated"),
    [
        ("Born in PERTH, 1939.", "Perth", ["PERTH"]),
        ("12.5 km, not 12", "12", ["12"]),
        ("The Red-House and the red house", "red house", ["Red-House", "red house"]),
        ("Wis\u0301niewski", "Wi\u015bniewski", ["Wis\u0301niewski"]),
        ("Straße", "STRASSE", ["Straße"]),
        ("他住在東京都", "東京", ["東京"]),
        ("ولد في القاهرة عام", "القاهرة", ["القاهرة"]),
        ("🙂 ok ﬁne", "fine", ["ﬁne"]),
        ("in Pe\u00adrth\u200b.", "Perth", ["Pe\u00adrth"]),
        ("e\u200b\u0301 Perth", "Perth", ["Perth"]),
        ("عام ١٩٧١", "1971", ["١٩٧١"]),
        ("قال مُحَمَّد لي", "محمد", ["مُحَمَّد"]),
        ("Perthshire", "Perth", []),
        ("", "a", []),
    ],
)
def test_a_phrase_is_found_where_it_stands_as_the_text_spells_it(text: str, phrase: str, stated: list[str]) -> None:
    assert [text[place.start : place.end] for place in Phrases([phrase]).places(text)] == stated


def test_the_longest_of_phrases_that_begin_alike_is_found() -> None:
    found = Phrases(["Ada", "Ada Alder", "..."]).places("Ada Alder and Ada")
    assert [place.phrase for place in found] == ["Ada Alder", "Ada"]


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.text("abß 1.,é\u0301東\u00ad\u200b١\u05b0", max_size=4))
def test_what_is_found_is_what_counts_as_stated(text: str, phrase: str) -> None:
    if any(letter.isalnum() for letter in phrase):
        answer = f"{text} {phrase} {text}"
        assert bool(Phrases([phrase]).places(answer)) == bool(fact_recall([answer], [[phrase]])[0])
        assert bool(Phrases([phrase]).places(text)) == bool(fact_recall([text], [[phrase]])[0])
