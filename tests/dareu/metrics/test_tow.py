import copy

import pytest

from dareu.metrics import add_tow, tow

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


def test_add_tow_gives_new_rows():
    rows = [{"method": "target", "metrics": MODEL}, {"method": "retrained", "metrics": RETRAINED}]
    before = copy.deepcopy(rows)
    added = add_tow(rows, rows[1])
    assert rows == before
    assert [row["metrics"]["tow"] for row in added] == [tow(MODEL, RETRAINED), 1.0]
    assert added[0]["method"] == "target"
