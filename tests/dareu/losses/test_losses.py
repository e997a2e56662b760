import math

import torch

from dareu.losses import graddiff, npo

LOGPS = torch.tensor([math.log(0.5) + math.log(0.25), math.log(0.9)], dtype=torch.float64)
REF = torch.tensor([math.log(0.5) + math.log(0.5), math.log(0.3)], dtype=torch.float64)
LENGTHS = torch.tensor([2.0, 1.0], dtype=torch.float64)


def test_graddiff_by_hand() -> None:
    expected = ((math.log(0.5) + math.log(0.25)) / 2 + math.log(0.9)) / 2
    assert math.isclose(graddiff(LOGPS, LENGTHS).item(), expected, rel_tol=1e-12)


def test_npo_by_hand() -> None:
    ratios = [0.125 / 0.25, 0.9 / 0.3]
    # -log sigmoid(-b log r) = log(1 + r^b)
    expected = sum(2 / 0.1 * math.log(1 + ratio**0.1) for ratio in ratios) / 2
    assert math.isclose(npo(LOGPS, REF, beta=0.1).item(), expected, rel_tol=1e-12)


def test_npo_begins_at_two_log_two_over_beta() -> None:
    assert math.isclose(npo(REF, REF, beta=0.25).item(), 8 * math.log(2), rel_tol=1e-12)


def test_npo_gradient_equals_gradient_ascents_before_the_first_update() -> None:
    logps = REF.clone().requires_grad_()
    npo(logps, REF).backward()
    torch.testing.assert_close(logps.grad, torch.full_like(REF, 1 / len(REF)))  # of the mean summed log-probability


def test_gradients_in_float64() -> None:
    logps = LOGPS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: graddiff(x, LENGTHS), logps)
    assert torch.autograd.gradcheck(lambda x: npo(x, REF, beta=0.3), logps)
