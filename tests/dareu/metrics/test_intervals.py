import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dareu.metrics import auc_estimate
from dareu.metrics._intervals import mean_estimate


def test_auc_is_scikit_learn_s():
    generator = np.random.default_rng(0)
    for _ in range(20):
        high, low = generator.integers(0, 6, 17) + 1.0, generator.integers(0, 6, 9) / 1.0
        labels = [1] * len(high) + [0] * len(low)
        expected = roc_auc_score(labels, np.concatenate([high, low]))
        found = auc_estimate(high, low)
        assert found.value == pytest.approx(expected, abs=1e-12) and found.low <= found.value <= found.high
        assert auc_estimate(low, high).value == pytest.approx(1 - expected, abs=1e-12)


def test_auc_of_one_side_or_of_nothing_is_refused():
    with pytest.raises(ValueError, match="scores of both sides"):
        auc_estimate([1.0], [])
    with pytest.raises(ValueError, match="cannot rank a score that is NaN"):
        auc_estimate([1.0, float("nan")], [0.0])


def test_intervals_hold_the_truth_nineteen_times_in_twenty():
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        estimate = mean_estimate(generator.normal(0.3, 1, size=60))
        held += estimate.low <= 0.3 <= estimate.high
    assert 0.9 < held / 300 < 0.98


def test_the_same_numbers_every_time_and_rows_without_a_value_do_not_count():
    values = np.random.default_rng(2).random(30)
    with_gaps = np.concatenate([values, [np.nan] * 5])
    assert mean_estimate(values) == mean_estimate(with_gaps) == mean_estimate(values)
    assert mean_estimate([0.25] * 9) == pytest.approx((0.25, 0.25, 0.25))
