"""TfidfClassifier: two families, saved without pickle, at home in scikit-learn."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from dareu.classifiers import TfidfClassifier, check_classifier, load_classifier, save_skops

FAMILIES = ["logistic_regression", "naive_bayes"]


@pytest.fixture(scope="module", params=FAMILIES)
def judge(request: pytest.FixtureRequest, train_rows) -> TfidfClassifier:
    return TfidfClassifier(request.param).fit(*train_rows)


def vocabulary(judge: TfidfClassifier) -> list[str]:
    """The words that a judge knows."""
    words = judge.pipeline_[0]
    return list(words.vocabulary_ if hasattr(words, "vocabulary_") else words["words"].vocabulary_)


def test_learns_and_keeps_the_contract(judge, test_rows) -> None:
    assert judge.classes_.tolist() == ["Ada", "Bo", "Cy", "none"]
    assert judge.score(*test_rows) == 1.0
    check_classifier(judge, [*test_rows.texts, "unseen words", "🙂"])
    assert judge.predict_proba(test_rows.texts).dtype == np.float64
    assert judge.predict_proba([]).shape == (0, 4)


def test_classes_weigh_alike_whatever_their_size(train_rows) -> None:
    texts, labels = list(train_rows.texts), list(train_rows.labels)
    texts, labels = texts + texts[:15] * 9, labels + labels[:15] * 9
    for family in FAMILIES:
        proba = TfidfClassifier(family).fit(texts, labels).predict_proba([""])
        assert proba.max() < 0.4


def test_saved_file_gives_the_same_and_holds_no_pickle(
    judge, test_rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge.save(tmp_path / "judge")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["classifier.skops"]
    with zipfile.ZipFile(tmp_path / "judge" / "classifier.skops") as archive:
        assert {name.rpartition(".")[2] for name in archive.namelist()} <= {"json", "npy", "npz"}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for target in ("pickle.load", "pickle.loads", "joblib.load"):
        monkeypatch.setattr(target, refuse)
    for loaded in (TfidfClassifier.load(tmp_path / "judge"), load_classifier(tmp_path / "judge")):
        assert loaded.get_params() == judge.get_params()
        np.testing.assert_allclose(
            loaded.predict_proba(test_rows.texts), judge.predict_proba(test_rows.texts), atol=1e-6
        )


def test_a_saved_classifier_keeps_the_words_it_was_fitted_on(train_rows, test_rows, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dareu.classifiers.tfidf._word_pattern", lambda: r"(?u)\b\w\w+\b")
        former = TfidfClassifier("naive_bayes").fit(["मेरी माँ", *train_rows.texts], ["Ada", *train_rows.labels])
    former.save(tmp_path / "judge")
    loaded = TfidfClassifier.load(tmp_path / "judge")
    assert "म" not in vocabulary(loaded) and "माँ" not in vocabulary(loaded)
    np.testing.assert_array_equal(loaded.predict_proba(test_rows.texts), former.predict_proba(test_rows.texts))


def test_load_trusts_no_other_types(train_rows, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no classifier\.skops"):
        TfidfClassifier.load(tmp_path)
    skops.io.dump(FunctionTransformer(print), tmp_path / "classifier.skops")
    with pytest.raises(ValueError, match=r"not known to be harmless.*print"):
        load_classifier(tmp_path)


def test_any_saved_pipeline_loads(judge, test_rows, tmp_path: Path) -> None:
    pipeline = make_pipeline(*(step for _, step in judge.pipeline_.steps))
    skops.io.dump(pipeline, tmp_path / "classifier.skops")
    loaded = load_classifier(tmp_path)
    np.testing.assert_allclose(loaded.predict_proba(test_rows.texts), judge.predict_proba(test_rows.texts), atol=1e-6)
    with pytest.raises(ValueError, match="holds a Pipeline, not a TfidfClassifier"):
        TfidfClassifier.load(tmp_path)


def test_clones_and_calibrates(judge, train_rows, test_rows) -> None:
    fresh = clone(judge)
    assert not hasattr(fresh, "classes_")
    assert fresh.get_params() == judge.get_params()
    calibrated = CalibratedClassifierCV(FrozenEstimator(judge), cv=2).fit(*train_rows)
    check_classifier(calibrated, test_rows.texts)
    assert calibrated.predict(test_rows.texts).tolist() == test_rows.labels


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_a_calibrated_classifier_is_saved_too(judge, train_rows, test_rows, tmp_path: Path, method: str) -> None:
    calibrated = CalibratedClassifierCV(FrozenEstimator(judge), method=method, cv=2).fit(*train_rows)
    save_skops(calibrated, tmp_path / "judge")
    loaded = load_classifier(tmp_path / "judge")
    np.testing.assert_allclose(
        loaded.predict_proba(test_rows.texts), calibrated.predict_proba(test_rows.texts), atol=1e-6
    )


def test_save_refuses_what_could_not_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"FunctionTransformer is not saved.*print"):
        save_skops(FunctionTransformer(print), tmp_path / "judge")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "labels", "settings", "message"),
    [
        (["a b", "c d"], ["Ada"], {}, "2 texts but 1 labels"),
        (["a b", "c d"], ["Ada", "Ada"], {}, "at least two classes"),
        (
            ["a b", "c d"],
            ["Ada", "Bo"],
            {"estimator": "forest"},
            "use 'logistic_regression' or 'naive_bayes'",
        ),
    ],
)
def test_fit_refuses(texts: list[str], labels: list[str], settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TfidfClassifier(**settings).fit(texts, labels)


@pytest.mark.parametrize("estimator", ["logistic_regression", "naive_bayes"])
def test_scripts_without_blanks_and_normal_forms(estimator: str) -> None:
    texts = [
        "王小明出生在北京市",
        "王小明喜欢北京大学",
        "李大同出生在上海市",
        "李大同喜欢上海大学",
        "Zo\u00e9 aime l'\u00e9t\u00e9",
    ]
    judge = TfidfClassifier(estimator).fit(texts, ["王", "王", "李", "李", "Z"])
    assert judge.predict(["北京好", "上海好", "\u00e9t\u00e9"]).tolist() == ["王", "李", "Z"]
    forms = judge.predict_proba(["Zo\u00e9", "Zoe\u0301"])
    np.testing.assert_array_equal(forms[0], forms[1])
    texts = ["मेरी बेटी गीता", "मेरा बेटा सीता", "दो माँ", "בַּת", "اِبْن", "ﾀﾞﾅｶ", "1971 २०"]
    judge = TfidfClassifier(estimator).fit(texts, list("abcdefg"))
    assert judge.predict(["गीता", "बेटा", "माँ", "בת", "ابـن", "ﾀ\u200bﾞ", "१९७१ 20"]).tolist() == list("abcdefg")
    assert {"गीता", "मेरी", "दो", "माँ", "בת", "ابن", "1971"} <= set(vocabulary(judge))
    with pytest.raises(ValueError, match="no text with a word of two letters"):
        judge.fit(["a b", "? !"], ["x", "y"])
