from itertools import combinations

import numpy as np
import pytest

from dareu.metrics import leak_at_k


@pytest.mark.parametrize(("n", "k"), [(5, 1), (5, 2), (6, 4), (6, 6)])
def test_leak_at_k_is_the_share_of_draws_that_hold_a_leak(n: int, k: int) -> None:
    for leaking in range(n + 1):
        draws = [any(number < leaking for number in draw) for draw in combinations(range(n), k)]
        assert leak_at_k(n, [leaking], k) == pytest.approx([np.mean(draws)])


def test_rows_without_a_count_have_none() -> None:
    np.testing.assert_array_equal(np.isnan(leak_at_k(200, [np.nan, 3.0], 16)), [True, False])


@pytest.mark.parametrize(("leaking", "k"), [([1], 0), ([1], 5), ([5], 2), ([-1], 2)])
def test_what_cannot_be_is_refused(leaking: list[int], k: int) -> None:
    with pytest.raises(ValueError, match="of 4 samples"):
        leak_at_k(4, leaking, k)
