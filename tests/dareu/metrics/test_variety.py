import numpy as np
import pytest

from dareu.metrics import METRICS, distinct, repetition


def test_distinct_runs():
    assert distinct(["a b a b", "a b"], 2) == 2 / 4  # ab, ba, ab, ab
    assert distinct(["a b a b", "a b"], 1) == 2 / 6
    assert distinct(["a", ""], 2) == 1


def test_repeated_runs():
    texts = ["the sea the sea the sea the sea", "the sea is near the land", "", "the"]
    np.testing.assert_allclose(repetition(texts), [1 - 2 / 5, 0, 0, 0])
    np.testing.assert_allclose(repetition(["a A a."], 1), [2 / 3])


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        ("Ada's well-known sister , 12.5 km off -- it's true.", 10),  # what stands between blanks
        ("김민수는 서울에서 태어났다.", 3),
        ("王小明1971年出生。", 7),
        ("王 小明, and Ada-Maria", 5),
        ("ไทย ๒๕๑๔", 4),
        ("ﾀｰﾅｰ", 4),
        ("", 0),
    ],
)
def test_the_words_of_an_answer_are_what_blanks_part_or_where_there_are_none_its_characters(answer, length):
    assert METRICS["answer_words"].compute("forget", [answer]) == {"forget_answer_words": [length]}


def test_bad_runs():
    with pytest.raises(ValueError, match="n is 0"):
        distinct(["a"], 0)
