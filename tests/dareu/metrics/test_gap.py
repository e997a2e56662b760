import math

import pytest

from dareu.metrics import METRICS, against_retrained, retraining_gap, shown_columns

RETRAINED = {
    "forget_rouge": 0.6,
    "retain_rouge": 0.9,
    "test_rouge": 0.5,
    "forget_probability": 0.6,
    "retain_probability": 0.9,
    "fact_recall": 0.1,
    "name_kept": 1.0,
    "forget_attribution_heldout_stripped": 0.05,
    "misattribution": 0.3,
}
MODEL = {
    "forget_rouge": 0.5,
    "retain_rouge": 0.8,
    "test_rouge": 0.5,
    "forget_probability": 0.8,
    "retain_probability": 0.9,
    "fact_recall": 0.4,
    "name_kept": 0.7,
    "forget_attribution_heldout_stripped": 0.45,
    "misattribution": 0.5,
}
SQUARES = [0.01, 0.01, 0, 0.04, 0, 0.09, 0.09, 0.16, 0.04]


def test_it_is_the_root_mean_square_over_the_measures():
    assert retraining_gap(MODEL, RETRAINED) == pytest.approx(math.sqrt(sum(SQUARES) / 9))
    assert retraining_gap(RETRAINED, RETRAINED) == 0
    more = {"forget_base_nll": 9.0, "forget_attribution": 0.9, "test_probability": 0.9}  # which do not count
    assert retraining_gap(MODEL | more, RETRAINED | dict.fromkeys(more, 0.0)) == retraining_gap(MODEL, RETRAINED)


def test_blame_that_is_less_than_the_control_s_costs_nothing():
    less = MODEL | {"misattribution": 0.0}
    assert retraining_gap(less, RETRAINED) == pytest.approx(math.sqrt((sum(SQUARES) - 0.04) / 9))


def test_only_what_all_have_counts():
    some = {"forget_rouge": 0.5, "fact_recall": 0.4}
    assert retraining_gap(some, RETRAINED) == pytest.approx(math.sqrt(0.1 / 2))
    assert retraining_gap(MODEL, some | {"fact_recall": 0.1}) == pytest.approx(math.sqrt(0.09 / 2))
    assert retraining_gap(MODEL, RETRAINED, ["forget_rouge", "forget_base_nll"]) == pytest.approx(0.1)
    found = against_retrained(MODEL, RETRAINED, {"gap": METRICS["retraining_gap"]}, common=["name_kept"])
    assert found == {"retraining_gap": pytest.approx(0.3)}


def test_the_validation_judge_stands_in_for_the_test_judge_where_there_is_none():
    stand_in = "forget_attribution_validation_stripped"
    both = retraining_gap(MODEL | {stand_in: 0.0}, RETRAINED | {stand_in: 1.0})
    assert both == retraining_gap(MODEL, RETRAINED)
    assert retraining_gap({stand_in: 0.4}, {stand_in: 0.2}) == pytest.approx(0.2)


def test_gibberish_is_in_it():
    rows, proper = [1.0, 2.0, 99.0, 99.0], [float(value) for value in range(1, 21)]
    numbers = [MODEL | {"forget_base_nll": 50.25}, RETRAINED | {"forget_base_nll": 10.5}]
    values = {"row_values": {"forget_base_nll": rows}, "retrained_row_values": {"forget_base_nll": proper}}
    found = against_retrained(*numbers, **values)
    assert found["gibberish"] == 0.5  # of the control's own .05
    assert found["retraining_gap"] == pytest.approx(math.sqrt((sum(SQUARES) + 0.45**2) / 10))
    without = against_retrained(*numbers, **values, common=MODEL.keys())
    assert without["retraining_gap"] == pytest.approx(math.sqrt(sum(SQUARES) / 9))
    assert list(found) == ["retraining_gap", "gibberish", "tow", "tow_star"]
    assert list(found)[:3] == shown_columns()[:3]
    same = against_retrained(
        numbers[1],
        numbers[1],
        row_values={"forget_base_nll": proper},
        **{"retrained_row_values": {"forget_base_nll": proper}},
    )
    assert same == {"retraining_gap": 0, "gibberish": 0.05, "tow": 1, "tow_star": 1}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="The retraining gap needs one at least of forget_rouge, "):
        retraining_gap(MODEL, {"forget_base_nll": 2.0})
    with pytest.raises(ValueError, match="The retraining gap needs one at least of forget_rouge, "):
        retraining_gap(MODEL, RETRAINED, common=[])
    with pytest.raises(ValueError, match=r"'name_kept' within \[0, 1\], but it is 1.5"):
        retraining_gap(MODEL | {"name_kept": 1.5}, RETRAINED)
    with pytest.raises(ValueError, match=r"'name_kept' within \[0, 1\], but it is nan"):
        retraining_gap(MODEL, RETRAINED | {"name_kept": float("nan")})
