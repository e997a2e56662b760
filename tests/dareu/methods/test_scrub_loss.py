import math

import torch
from torch import Tensor

from dareu.methods.scrub import scrub, scrub_retain
from dareu.models.tiles import Predictions, token_terms

KL = torch.tensor([0.25, 0.75], dtype=torch.float64)
NLL = torch.tensor([1.0, 3.0], dtype=torch.float64)


def divergence(teacher: Tensor, logits: Tensor) -> Tensor:
    return token_terms(("kl",), Predictions(logits), torch.zeros(2, dtype=torch.int64), Predictions(teacher))[0, 0]


def test_by_hand() -> None:
    assert scrub(KL).item() == -0.5
    expected = (0.5 * 0.25 + 2 * 1.0 + 0.5 * 0.75 + 2 * 3.0) / 2
    assert math.isclose(scrub_retain(KL, NLL, alpha=0.5, gamma=2.0).item(), expected, rel_tol=1e-12)


def test_gradients_in_float64_through_the_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(2, 5, generator=generator, dtype=torch.float64) for _ in range(2))

    def ascent(logits: Tensor) -> Tensor:
        return scrub(divergence(teacher, logits))

    def descent(logits: Tensor) -> Tensor:
        return scrub_retain(divergence(teacher, logits), -logits.log_softmax(-1)[:, 0], alpha=0.3, gamma=0.7)

    for loss in (ascent, descent):
        assert torch.autograd.gradcheck(loss, student.clone().requires_grad_())


def test_the_divergence_is_flat_at_the_original() -> None:
    teacher = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = teacher.clone().requires_grad_()
    loss = scrub(divergence(teacher, logits))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None and logits.grad.abs().max() < 1e-15
