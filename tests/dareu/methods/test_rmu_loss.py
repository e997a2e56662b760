import math

import pytest
import torch
from torch import Tensor

from dareu.methods.rmu import control_vector, rmu

HIDDEN = torch.tensor(
    [[[1.0, 2.0], [3.0, -1.0], [9.0, 9.0]], [[0.0, 1.0], [5.0, 5.0], [7.0, 7.0]]], dtype=torch.float64
)
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])
TARGET = torch.tensor([0.6, 0.8], dtype=torch.float64)


def test_by_hand() -> None:
    first = [(0.4**2 + 1.2**2) / 2, (2.4**2 + 1.8**2) / 2]
    second = (0.6**2 + 0.2**2) / 2
    assert math.isclose(rmu(HIDDEN, TARGET, MASK).item(), (sum(first) / 2 + second) / 2, rel_tol=1e-12)


def test_a_target_for_each_token() -> None:
    target = HIDDEN + torch.tensor([[[2.0], [0.0], [50.0]], [[1.0], [50.0], [50.0]]], dtype=torch.float64)
    assert math.isclose(rmu(HIDDEN, target, MASK).item(), ((4 + 0) / 2 + 1) / 2, rel_tol=1e-12)
    assert rmu(HIDDEN, HIDDEN, MASK).item() == 0.0


def test_padding_never_counts_on_either_side_even_as_nan() -> None:
    expected = rmu(HIDDEN, TARGET, MASK).item()
    left = torch.full((2, 5, 2), math.nan, dtype=torch.float64)
    mask = torch.zeros(2, 5, dtype=torch.int64)
    left[0, 3:], left[1, 4:] = HIDDEN[0, :2], HIDDEN[1, :1]
    mask[0, 3:], mask[1, 4:] = 1, 1
    left.requires_grad_()
    loss = rmu(left, TARGET, mask)
    assert math.isclose(loss.item(), expected, rel_tol=1e-12)
    loss.backward()
    assert left.grad is not None and left.grad[mask == 0].eq(0).all() and left.grad[mask == 1].ne(0).all()


def test_a_text_counts_once_whatever_its_batch() -> None:
    apart = [rmu(HIDDEN[i : i + 1], TARGET, MASK[i : i + 1]).item() for i in range(2)]
    assert math.isclose(rmu(HIDDEN, TARGET, MASK).item(), sum(apart) / 2, rel_tol=1e-12)


def test_gradients_in_float64() -> None:
    def loss(hidden: Tensor) -> Tensor:
        return rmu(hidden, TARGET, MASK)

    assert torch.autograd.gradcheck(loss, HIDDEN.clone().requires_grad_())


def test_the_control_vector_is_a_draw_of_its_own() -> None:
    torch.manual_seed(1)
    first = control_vector(64, seed=5)
    state = torch.get_rng_state()
    torch.rand(3)
    assert torch.equal(first, control_vector(64, seed=5)) and not torch.equal(first, control_vector(64, seed=6))
    torch.set_rng_state(state)
    control_vector(64, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.norm().item() == pytest.approx(1.0, abs=1e-6) and first.min() >= 0  # uniform, not normal
