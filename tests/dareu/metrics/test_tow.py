import pytest

from dareu.metrics import METRICS, Metric, against_retrained, retraining_gap, tow

RETRAINED = {"forget_rouge": 0.4, "retain_rouge": 0.9, "test_rouge": 0.5}
MODEL = {"forget_rouge": 0.5, "retain_rouge": 0.7, "test_rouge": 0.5, "name_kept": 1.0}


def test_tow_is_the_product_of_one_minus_the_distances():
    assert tow(MODEL, RETRAINED) == pytest.approx(0.9 * 0.8 * 1.0, abs=1e-12)


def test_tow_star_leaves_the_test_split_out():
    model = MODEL | {"test_rouge": 0.0}
    assert tow(model, RETRAINED) == pytest.approx(0.9 * 0.8 * 0.5, abs=1e-12)
    assert tow(model, RETRAINED, ("forget", "retain")) == pytest.approx(0.9 * 0.8, abs=1e-12)


def test_tow_is_symmetric_and_one_for_the_retrained_model():
    assert tow(RETRAINED, RETRAINED) == 1.0
    assert tow(MODEL, RETRAINED) == tow(RETRAINED, MODEL)


def test_missing_metric_is_named():
    with pytest.raises(ValueError, match="'test_rouge', but there are only forget_rouge, retain_rouge"):
        tow({"forget_rouge": 0.1, "retain_rouge": 0.1}, RETRAINED)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_values_that_are_no_recall_are_refused(value):
    with pytest.raises(ValueError, match=r"'forget_rouge' within \[0, 1\]"):
        tow(MODEL | {"forget_rouge": value}, RETRAINED)


def test_no_splits_are_refused():
    with pytest.raises(ValueError, match="at least one split"):
        tow(MODEL, RETRAINED, ())


def test_against_the_retrained_model_there_is_what_compares_and_nothing_else():
    gap = retraining_gap(MODEL, RETRAINED)
    star = tow(MODEL, RETRAINED, ("forget", "retain"))
    found = {"retraining_gap": gap, "tow": tow(MODEL, RETRAINED), "tow_star": star}
    assert against_retrained(MODEL, RETRAINED) == found
    assert against_retrained(RETRAINED, RETRAINED) == {"retraining_gap": 0.0, "tow": 1.0, "tow_star": 1.0}
    assert against_retrained(MODEL, RETRAINED, {"rouge": METRICS["rouge"]}) == {}
    assert against_retrained({}, {}, {"rouge": METRICS["rouge"]}) == {}


def test_a_comparison_of_one_s_own():
    def gap(numbers, retrained, *, name="retain_rouge"):
        return {"gap": numbers[name] - retrained[name]}

    def half(numbers, retrained):
        return {"half": numbers["gap"] / 2}

    metrics = {"gap": Metric(gap, splits=()), "half": Metric(half, splits=())}
    expected = {"gap": pytest.approx(0.1), "half": pytest.approx(0.05)}
    assert against_retrained(MODEL, RETRAINED, metrics, {"gap": {"name": "forget_rouge"}}) == expected


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda numbers, retrained: {"retain_rouge": 1.0}, "'mine' gives 'retain_rouge', which the measurement has"),
        (lambda numbers, retrained: {"gap": float("nan")}, "'mine' gives 'gap' as nan: it must be finite"),
        (lambda numbers, retrained: {"gap": [0.1, 0.2]}, r"'gap' as an array of shape \(2,\): it must be one number\."),
        (lambda numbers, retrained, model: {}, "'mine' asks for model: there are numbers, retrained"),
    ],
)
def test_a_comparison_that_gives_no_number_of_its_own_is_refused(compute, message):
    with pytest.raises(ValueError, match=message):
        against_retrained(MODEL, RETRAINED, {"mine": Metric(compute, splits=())})
