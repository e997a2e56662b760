import numpy as np
import pytest

from dareu.metrics import attribution_scores, forget_attribution, misattribution


class FixedJudge:
    def __init__(self, classes, rows):
        self.classes_ = np.array(classes)
        self.rows = np.array(rows)

    def predict_proba(self, texts):
        return self.rows[: len(texts)]


JUDGE = FixedJudge(["ann", "bob", "cid", "none"], [[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 0.0, 0.25]])


def test_forget_owners_are_summed_and_rows_averaged():
    assert forget_attribution(JUDGE, ["x", ""], ["ann"]) == pytest.approx((0.1 + 0.5) / 2)
    assert forget_attribution(JUDGE, ["x", ""], ["bob", "ann"]) == pytest.approx((0.3 + 0.75) / 2)
    assert forget_attribution(JUDGE, ["x", ""], ["ann", "ann"]) == pytest.approx((0.1 + 0.5) / 2)


def test_misattribution_is_the_highest_retained_owner_and_none_is_no_owner():
    assert misattribution(JUDGE, ["x", "y"], ["ann"]) == pytest.approx((0.3 + 0.25) / 2)
    assert misattribution(JUDGE, ["x", "y"], ["bob"]) == pytest.approx((0.3 + 0.5) / 2)


def test_scores_are_given_row_by_row():
    scores = attribution_scores(JUDGE, ["x", "y"], ["ann", "cid"])
    np.testing.assert_allclose(scores.forget, [0.4, 0.5])
    np.testing.assert_allclose(scores.retained, [0.2, 0.25])


def test_judge_without_retained_owners():
    with pytest.raises(ValueError, match="no owner beside the forget owners"):
        misattribution(JUDGE, ["x"], ["ann", "bob", "cid"])
    assert forget_attribution(JUDGE, ["x"], ["ann", "bob", "cid"]) == pytest.approx(0.6)


@pytest.mark.parametrize("owner", ["zoe", "none"])
def test_unknown_owner_lists_the_classes(owner):
    with pytest.raises(ValueError, match=f"owner '{owner}'; its classes are ann, bob, cid, none"):
        forget_attribution(JUDGE, ["x"], ["ann", owner])


@pytest.mark.parametrize("owners", [[], "ann"])
def test_owners_must_be_a_list(owners):
    with pytest.raises(ValueError, match="as a list of at least one"):
        forget_attribution(JUDGE, ["x"], owners)


def test_no_answers_are_refused():
    with pytest.raises(ValueError, match="no answers"):
        forget_attribution(JUDGE, [], ["ann"])


@pytest.mark.parametrize("row", [[0.5, 0.4], [np.nan, 1.0], [np.inf, 0.0], [1.5, -0.5]])
def test_rows_must_be_distributions(row):
    judge = FixedJudge(["ann", "bob"], [[0.5, 0.5], row])
    with pytest.raises(ValueError, match="in row 1 sum to"):
        forget_attribution(judge, ["x", "y"], ["ann"])


def test_shape_must_fit():
    with pytest.raises(ValueError, match=r"shape \(2, 4\).*\(3, 4\)"):
        forget_attribution(JUDGE, ["x", "y", "z"], ["ann"])
