import numpy as np
import pytest

from dareu.metrics import exact_memorisation, extraction_strength

HITS = [[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0], [0], [1], [0, 0, 0]]


def test_share_of_tokens():
    np.testing.assert_allclose(exact_memorisation(HITS), [1, 0.75, 0.75, 0.75, 0, 1, 0])


def test_strength_is_what_follows_from_a_beginning():
    # By the definition: the smallest k from which all tokens are right
    expected = []
    for row in HITS:
        k = next(k for k in range(len(row) + 1) if all(row[k:]))
        expected.append(1 - k / len(row))
    np.testing.assert_allclose(extraction_strength(HITS), expected)
    assert expected[1] == 0.75 and expected[3] == 0  # which public code never says


def test_no_tokens():
    for metric in (exact_memorisation, extraction_strength):
        with pytest.raises(ValueError, match="Row 1 has no tokens"):
            metric([[1], []])
