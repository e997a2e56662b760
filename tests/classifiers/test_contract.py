"""The contract's checks: each thing a plug-in can break is named, and what keeps it passes."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from dareu.classifiers import Classifier, check_classifier, checked_proba, owner_columns, proba_at

TEXTS = ["a harbour", "the sea and the sand", "the snow"]


class Counting:
    """P by the share of letters a and e; counts the texts it is asked for."""

    classes_: object = ("Ada", "Bo")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict_proba(self, texts: list[str]) -> object:
        self.asked += texts
        first = np.array([(1 + text.count("a")) / (2 + text.count("a") + text.count("e")) for text in texts])
        return np.stack([first, 1 - first], axis=1)


def changed(function: Callable[[list[str], np.ndarray], object]) -> Counting:
    class Broken(Counting):
        def predict_proba(self, texts: list[str]) -> object:
            return function(texts, super().predict_proba(texts))

    return Broken()


def in_row_1(value: list[float]) -> Counting:
    def edit(texts: list[str], proba: np.ndarray) -> np.ndarray:
        if len(proba) > 1:
            proba[1] = value
        return proba

    return changed(edit)


def with_classes(classes: object) -> Counting:
    classifier = Counting()
    classifier.classes_ = classes
    return classifier


def refuse_empty(texts: list[str], proba: np.ndarray) -> np.ndarray:
    if "" in texts:
        raise RuntimeError("no tokens")
    return proba


class EndsElsewhere(Counting):
    def predict_proba_at(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [np.full((len(at), 2), 0.5) for at in ends]


class NoClasses:
    def predict_proba(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 1))


class NoProba:
    classes_ = ("Ada", "Bo")


BROKEN = {
    "no classes": (NoClasses(), "NoClasses has no `classes_`"),
    "no predict_proba": (NoProba(), "NoProba has no `predict_proba"),
    "empty classes": (with_classes([]), "classes_ is empty"),
    "class twice": (with_classes(["Ada", "Ada"]), "holds 'Ada' twice"),
    "class not a string": (with_classes([0, 1]), "holds 0, but owner names must be strings"),
    "a list": (changed(lambda texts, proba: proba.tolist()), "returned a list"),
    "integers": (changed(lambda texts, proba: proba.round().astype(int)), "an array of int64"),
    "wrong shape": (changed(lambda texts, proba: proba[:, :1]), r"shape \(3, 1\) where \(3, 2\)"),
    "fewer rows": (changed(lambda texts, proba: proba[1:]), r"shape \(2, 2\) where \(3, 2\)"),
    "NaN": (in_row_1([np.nan, 1.0]), "NaN or inf in row 1"),
    "inf": (in_row_1([np.inf, 0.0]), "NaN or inf in row 1"),
    "negative": (in_row_1([1.2, -0.2]), r"negative entry \(-0.2\) in row 1"),
    "sum": (in_row_1([0.5, 0.4]), "row 1 that sums to 0.9000"),
    "empty text": (changed(refuse_empty), "cannot score the empty text, which an answer may be: no tokens"),
    "batch": (changed(lambda texts, proba: proba if len(texts) < 3 else proba[:, ::-1]), "in another batch"),
    "order": (changed(lambda texts, proba: proba if len(texts) < 4 else proba[::-1]), "in another batch"),
    "prefixes": (EndsElsewhere(), "must give what predict_proba gives it"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_check_names_what_is_broken(name: str) -> None:
    classifier, message = BROKEN[name]
    with pytest.raises(ValueError, match=message):
        check_classifier(classifier, TEXTS)


def test_check_passes_what_keeps_the_contract() -> None:
    pipeline = make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, ["Ada", "Cy", "Bo"])
    for classifier in (Counting(), pipeline):
        assert isinstance(classifier, Classifier)
        check_classifier(classifier, TEXTS)
        check_classifier(classifier, TEXTS[:1])


def test_check_needs_texts() -> None:
    with pytest.raises(ValueError, match="at least one text"):
        check_classifier(Counting(), [])


def test_tolerance_is_1e_4() -> None:
    checked_proba(in_row_1([0.5, 0.50009]), TEXTS)
    with pytest.raises(ValueError, match="sums to"):
        checked_proba(in_row_1([0.5, 0.50011]), TEXTS)


def test_checked_proba_is_float64_and_takes_no_texts() -> None:
    single = changed(lambda texts, proba: proba.astype(np.float32))
    assert checked_proba(single, TEXTS).dtype == np.float64
    assert checked_proba(single, []).shape == (0, 2)


def test_proba_at_falls_back_to_cut_texts_each_scored_once() -> None:
    classifier = Counting()
    ends = [[0, 3, 9, 3], [], [3, 0]]
    result = proba_at(classifier, TEXTS, ends)
    assert sorted(classifier.asked) == sorted({"", "a h", "a harbour", "the"})
    for text, offsets, rows in zip(TEXTS, ends, result, strict=True):
        assert rows.shape == (len(offsets), 2)
        for end, row in zip(offsets, rows, strict=True):
            np.testing.assert_array_equal(row, checked_proba(classifier, [text[:end]])[0])
    assert proba_at(classifier, [], []) == []


def test_proba_at_uses_and_checks_the_classifiers_own() -> None:
    classifier = EndsElsewhere()
    assert [rows.tolist() for rows in proba_at(classifier, ["abc"], [[1, 2]])] == [[[0.5, 0.5], [0.5, 0.5]]]
    assert classifier.asked == []
    classifier.predict_proba_at = lambda texts, ends: [np.full((1, 2), 0.5)]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"predict_proba_at returned shape \(1, 2\) where \(2, 2\)"):
        proba_at(classifier, ["abc"], [[1, 2]])
    with pytest.raises(ValueError, match="1 arrays for 2 texts"):
        proba_at(classifier, ["abc", "d"], [[1], [1]])


@pytest.mark.parametrize(
    ("texts", "ends", "message"),
    [
        (["abc"], [[4]], "must lie within 0..3"),
        (["abc"], [[-1]], "within 0..3"),
        (["abc"], [], "0 lists of ends"),
    ],
)
def test_proba_at_refuses_bad_ends(texts: list[str], ends: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        proba_at(Counting(), texts, ends)


def test_owner_columns() -> None:
    classifier = with_classes(np.array(["Ada", "Bo", "none"]))
    assert owner_columns(classifier, ["Bo", "Ada"]) == [1, 0]
    with pytest.raises(ValueError, match=r"does not know \['none'\]"):
        owner_columns(classifier, ["none", "Ada"])
    with pytest.raises(ValueError, match=r"does not know \['Cy'\].*\['Ada', 'Bo', 'none'\]"):
        owner_columns(classifier, ["Ada", "Cy"])


def test_an_owner_has_one_column_however_the_name_is_encoded() -> None:
    classifier = with_classes(np.array(["Ada", "Zoe\u0301 ", "none"]))
    assert owner_columns(classifier, ["Zo\u00e9", "Ada\u00a0"]) == [1, 0]
    with pytest.raises(ValueError, match=r"holds .* twice"):
        owner_columns(with_classes(np.array(["Zo\u00e9", "Zoe\u0301", "Bo"])), ["Bo"])
