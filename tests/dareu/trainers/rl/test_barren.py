"""A word where generation batches in a row have nothing to learn from."""

import pytest
import torch
from accelerate import Accelerator

from dareu.trainers.rl._barren import BarrenBatches
from dareu.trainers.rl._rollouts import Rollout
from dareu.trainers.rl._scoring import TokenScores


def rollout(ended: list[bool], sampled: list[bool]) -> Rollout:
    """Completions of three tokens, of which those that were cut off do not count; others than the sampled are given."""
    mask = torch.tensor(ended)[:, None].expand(-1, 3)
    made = Rollout(given=[None if is_sampled else [5, 2] for is_sampled in sampled])
    made.scores = TokenScores(mask * -1.0, torch.zeros(len(mask)), torch.ones(len(mask)).bool(), mask, mask * 0.0)
    return made


@pytest.mark.parametrize(
    ("ended", "flat", "word"),
    [
        ([True, False, False], 0.0, "Every sampled completion of 10 generation batches in a row was cut off"),
        ([True, True, False], 1.0, "No group of 10 generation batches in a row had any spread"),
        ([True, True, False], 0.9, None),
    ],
)
def test_ten_in_a_row_are_worth_one_warning(
    ended: list[bool], flat: float, word: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The first completion is a gold one, which always ends."""
    batches, accelerator = BarrenBatches(8), Accelerator(cpu=True)
    for _ in range(9):
        batches.see(rollout(ended, [False, True, True]), flat, accelerator)
    assert not caplog.text
    batches.see(rollout([True] * 3, [False, True, True]), 0.0, accelerator)  # one that teaches something
    for _ in range(25):
        batches.see(rollout(ended, [False, True, True]), flat, accelerator)
    assert len(caplog.records) == (word is not None) and (word or "") in caplog.text


def test_an_estimator_that_compares_nothing_learns_from_equal_completions(caplog: pytest.LogCaptureFixture) -> None:
    accelerator = Accelerator(cpu=True)
    reasons = []
    for compares in (True, False):
        batches = BarrenBatches(8, compares=compares)
        for _ in range(12):
            batches.see(rollout([True] * 3, [True] * 3), 1.0, accelerator)
        reasons.append(batches.reason())
    assert reasons[0] is not None and "no group ever had any spread" in reasons[0] and reasons[1] is None
    assert len(caplog.records) == 1
