import math

import pytest

from dareu.audits import leak_score, robustness
from dareu.runs.audits import StoredAudit, StoredAudits, robustness_of


def test_the_leak_score_places_a_model_between_retrained_and_target() -> None:
    assert leak_score(0.5, target=0.9, retrained=0.1) == pytest.approx(0.5)
    assert leak_score(0.1, 0.9, 0.1) == 0 and leak_score(0.9, 0.9, 0.1) == 1
    assert leak_score(0.0, 0.9, 0.1) == pytest.approx(-0.125)


def test_there_is_no_score_where_the_target_tells_no_more_than_the_retrained_model() -> None:
    assert leak_score(0.5, target=0.14, retrained=0.1) is None
    assert leak_score(0.5, target=0.1, retrained=0.4) is None


def strength(before: float, relearnt: float, rounded: float) -> dict[str, dict[str, list[float]]]:
    """Of two rows that are alike."""
    return {
        "unattacked": {"": [before] * 2},
        "quantisation": {"int8": [0.0] * 2, "int4": [rounded] * 2},
        "relearning": {"1 step": [0.0] * 2, "5 steps": [relearnt] * 2},
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


def test_rows_that_were_relearnt_and_not_read_do_not_count() -> None:
    model, retrained = strength(0.1, 0.5, 0.1), strength(0.1, 0.2, 0.1)
    for each in (model, retrained):
        each["unattacked"][""][0] = 0.9  # of the row that is relearnt
        each["relearning"]["5 steps"][0] = math.nan
    assert robustness(model, retrained)["relearning_robustness"] == pytest.approx(0.25)


def test_robustness_of_audits_that_were_not_made_is_left_out() -> None:
    model = strength(0.1, 0.2, 0.2)
    del model["relearning"]
    assert robustness(model, model).keys() == {"quantisation_robustness"}
    assert robustness({"unattacked": model["unattacked"]}, model) == {}


def test_audits_of_other_rows_have_no_part_in_robustness() -> None:
    """They are kept from another start with other rows."""

    def found(relearnt: float, rows: str) -> StoredAudits:
        each = strength(0.1, relearnt, rounded=0.1)
        stored = {
            name: StoredAudit(
                key=name,
                readings={},
                rows={setting: {"extraction_strength": list(of)} for setting, of in settings.items()},
                asked=rows if name == "relearning" else "all",
            )
            for name, settings in each.items()
        }
        return {"audits": stored, "left_out": {}}

    both = {"relearning_robustness", "quantisation_robustness", "robustness"}
    assert robustness_of(found(0.5, "all"), found(0.2, "all")).keys() == both
    assert robustness_of(found(0.5, "some"), found(0.2, "some")).keys() == {"quantisation_robustness"}
