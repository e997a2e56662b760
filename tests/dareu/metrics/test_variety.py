import numpy as np
import pytest

from dareu.metrics import distinct, repetition


def test_distinct_runs():
    assert distinct(["a b a b", "a b"], 2) == 2 / 4  # ab, ba, ab, ab
    assert distinct(["a b a b", "a b"], 1) == 2 / 6
    assert distinct(["a", ""], 2) == 1


def test_repeated_runs():
    texts = ["the sea the sea the sea the sea", "the sea is near the land", "", "the"]
    np.testing.assert_allclose(repetition(texts), [1 - 2 / 5, 0, 0, 0])
    np.testing.assert_allclose(repetition(["a A a."], 1), [2 / 3])


def test_bad_runs():
    with pytest.raises(ValueError, match="n is 0"):
        distinct(["a"], 0)
