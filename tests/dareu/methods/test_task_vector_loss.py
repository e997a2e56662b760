import math

import torch

from dareu.methods.task_vector import negated, task_vector

LOGPS = torch.tensor([math.log(0.5) + math.log(0.25), math.log(0.9)], dtype=torch.float64)
LENGTHS = torch.tensor([2.0, 1.0], dtype=torch.float64)


def test_what_is_learnt_by_hand() -> None:
    expected = -((math.log(0.5) + math.log(0.25)) / 2 + math.log(0.9)) / 2
    assert math.isclose(task_vector(LOGPS, LENGTHS).item(), expected, rel_tol=1e-12)


def test_what_is_subtracted_by_hand() -> None:
    original, tuned = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([1.5, -2.0, 0.25]).double()
    assert negated(original, tuned, alpha=2.0).tolist() == [0.0, -2.0, 1.0]


def test_bfloat16_is_rounded_once_at_the_end() -> None:
    original, tuned = torch.tensor([1.0]).bfloat16(), torch.tensor([1.0078125]).bfloat16()
    result = negated(original, tuned, alpha=3.0)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, torch.tensor([1.0 - 3 * 0.0078125]).bfloat16())


def test_gradients_in_float64() -> None:
    assert torch.autograd.gradcheck(lambda x: task_vector(x, LENGTHS), LOGPS.clone().requires_grad_())
    tuned = torch.tensor([1.5, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: negated(torch.ones(2).double(), x, alpha=1.5), tuned)
