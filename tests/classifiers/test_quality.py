"""The quality card against arithmetic."""

import json
import math

import numpy as np
import pytest

from dareu.classifiers import quality_card


class Fixed:
    classes_ = ("Ada", "Bo", "Cy")

    def predict_proba(self, texts: list[str]) -> np.ndarray:
        rows = {"p": [0.9, 0.1, 0.0], "q": [0.4, 0.6, 0.0], "r": [0.35, 0.65, 0.0]}
        return np.array([rows[text] for text in texts])


def test_quality_card() -> None:
    card = quality_card(Fixed(), ["p", "q", "r"], ["Ada", "Ada", "Bo"])
    assert card == json.loads(json.dumps(card))
    assert card["count"] == 3
    assert card["accuracy"] == pytest.approx(2 / 3)
    assert card["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.65)) / 3)
    # "p" alone in its bin: |1 - .9|; "q" and "r" share one: |(0 - .6) + (1 - .65)|.
    assert card["calibration_error"] == pytest.approx((0.1 + 0.25) / 3)
    assert card["recall"] == {"Ada": 0.5, "Bo": 1.0, "Cy": None}


def test_quality_card_is_finite_where_the_truth_has_no_probability() -> None:
    card = quality_card(Fixed(), ["p"], ["Cy"])
    assert card["log_loss"] == pytest.approx(-math.log(1e-12))
    assert card["accuracy"] == 0.0


def test_quality_card_refuses() -> None:
    with pytest.raises(ValueError, match="1 texts and 0 labels"):
        quality_card(Fixed(), ["p"], [])
    with pytest.raises(ValueError, match="0 texts"):
        quality_card(Fixed(), [], [])
    with pytest.raises(ValueError, match=r"does not know \['Di'\]"):
        quality_card(Fixed(), ["p"], ["Di"])
