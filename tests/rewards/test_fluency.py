from typing import Any

import numpy as np
import pytest

from dareu.rewards import FluencyReward


def words(prompts: list[Any], completions: list[Any]) -> list[float]:
    return [float(len(completion.split())) for completion in completions]


def test_score_is_the_clipped_excess_over_the_bound() -> None:
    reward = FluencyReward(words, 2.0, width=4.0)
    completions = ["", "a b", "a b c", "a b c d e", "a b c d e f g h"]
    assert reward(["?"] * 5, completions) == [0.0, 0.0, -0.25, -0.75, -1.0]


def test_calibration_lets_the_quantile_pass() -> None:
    completions = ["a", "a b", "a b c", "a b c d", "a b c d e"]
    retained = {"prompt": ["?"] * 5, "completion": completions}
    reward = FluencyReward.calibrate(words, retained, quantile=0.75, width=2.0)
    assert reward.bound == 4.0 and reward.width == 2.0
    assert reward(["?"] * 5, completions) == [0.0, 0.0, 0.0, 0.0, -0.5]


def test_nothing_to_calibrate_on_is_refused() -> None:
    with pytest.raises(ValueError, match="no retained rows to take the bound from"):
        FluencyReward.calibrate(words, {"prompt": [], "completion": []})


def test_it_tells_trl_the_mean_nll() -> None:
    logged: dict[str, float] = {}
    FluencyReward(words, 2.0)(["?", "?"], ["a", "a b c"], log_metric=logged.__setitem__)
    assert logged == {"fluency_nll": 2.0}


@pytest.mark.parametrize(("bound", "width"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, 0.0), (1.0, np.nan)])
def test_bad_settings(bound: float, width: float) -> None:
    with pytest.raises(ValueError, match="finite bound and a positive width"):
        FluencyReward(words, bound, width=width)
