import pytest

from dareu.audits import leak_score, robustness


def test_the_leak_score_places_a_model_between_retrained_and_target() -> None:
    assert leak_score(0.5, target=0.9, retrained=0.1) == pytest.approx(0.5)
    assert leak_score(0.1, 0.9, 0.1) == 0 and leak_score(0.9, 0.9, 0.1) == 1
    assert leak_score(0.0, 0.9, 0.1) == pytest.approx(-0.125)


def test_there_is_no_score_where_the_target_tells_no_more_than_the_retrained_model() -> None:
    assert leak_score(0.5, target=0.14, retrained=0.1) is None
    assert leak_score(0.5, target=0.1, retrained=0.4) is None


def strength(before: float, relearnt: float, rounded: float) -> dict[str, dict[str, dict[str, float]]]:
    return {
        "unattacked": {"": {"extraction_strength": before}},
        "quantisation": {"int8": {"extraction_strength": 0.0}, "int4": {"extraction_strength": rounded}},
        "relearning": {"1 step": {"extraction_strength": 0.0}, "5 steps": {"extraction_strength": relearnt}},
    }


def test_robustness_takes_the_last_settings() -> None:
    found = robustness(strength(0.1, relearnt=0.5, rounded=0.28), strength(0.1, relearnt=0.2, rounded=0.1))
    # Relearning takes .4 of the forgetting and .1 of the retrained model's; rounding leaves .72 of .9
    r, q = 0.25, 0.8
    expected = {"relearning_robustness": r, "quantisation_robustness": q, "robustness": 2 * r * q / (r + q)}
    assert found == pytest.approx(expected)


def test_robustness_is_at_most_one_and_at_least_zero() -> None:
    steady = robustness(strength(0.1, relearnt=0.05, rounded=0.05), strength(0.1, relearnt=0.2, rounded=0.1))
    assert steady == {"relearning_robustness": 1.0, "quantisation_robustness": 1.0, "robustness": 1.0}
    lost = robustness(strength(0.0, relearnt=0.4, rounded=1.0), strength(0.1, relearnt=0.05, rounded=0.1))
    assert lost == {"relearning_robustness": 0.0, "quantisation_robustness": 0.0, "robustness": 0.0}


def test_robustness_of_audits_that_were_not_made_is_left_out() -> None:
    model = strength(0.1, 0.2, 0.2)
    del model["relearning"]
    assert robustness(model, model).keys() == {"quantisation_robustness"}
    assert robustness({"unattacked": model["unattacked"]}, model) == {}
