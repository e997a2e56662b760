"""Every loss against arithmetic by hand, on a record of two tokens and one of one token."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dareu.methods.dpo import dpo
from dareu.methods.finetune_retain import finetune_retain
from dareu.methods.gradient_ascent import gradient_ascent
from dareu.methods.idk import idk
from dareu.methods.npo import npo
from dareu.methods.satimp import satimp
from dareu.methods.simnpo import simnpo
from dareu.methods.undial import undial
from dareu.methods.wga import wga
from dareu.models.tiles import Predictions, token_terms

LOGPS = torch.tensor([math.log(0.5) + math.log(0.25), math.log(0.9)], dtype=torch.float64)
REF = torch.tensor([math.log(0.5) + math.log(0.5), math.log(0.3)], dtype=torch.float64)
LENGTHS = torch.tensor([2.0, 1.0], dtype=torch.float64)

TOKEN_LOGPS = torch.tensor([0.5, 0.25, 0.9], dtype=torch.float64).log()
ROWS = torch.tensor([0, 0, 1])

REFUSAL = torch.tensor([math.log(0.2), math.log(0.1) + math.log(0.6)], dtype=torch.float64)
REFUSAL_LENGTHS = torch.tensor([1.0, 2.0], dtype=torch.float64)
REF_REFUSAL = torch.tensor([math.log(0.1), math.log(0.3) + math.log(0.2)], dtype=torch.float64)

LOGITS = torch.tensor([[0.2, -1.0, 0.5], [1.5, 0.0, -0.3], [0.0, 2.0, 1.0]], dtype=torch.float64)
REF_LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.1], [-2.0, 1.0, 0.0]], dtype=torch.float64)
TOKENS = torch.tensor([0, 2, 1])


def undial_of(logits: Tensor, **options: float) -> Tensor:
    """The loss of logits, by way of the terms that the trainer computes."""
    names = ("logps", "others_nll", "ref_odds")
    return undial(
        *token_terms(names, Predictions(logits), TOKENS, Predictions(REF_LOGITS))[0], ROWS, LENGTHS, **options
    )


def check(loss: Tensor, expected: float) -> None:
    assert loss.shape == () and math.isclose(loss.item(), expected, rel_tol=1e-12)


def test_gradient_ascent_by_hand() -> None:
    check(gradient_ascent(LOGPS, LENGTHS), ((math.log(0.5) + math.log(0.25)) / 2 + math.log(0.9)) / 2)


def test_idk_by_hand() -> None:
    expected = -(math.log(0.2) / 1 + (math.log(0.1) + math.log(0.6)) / 2) / 2
    check(idk(REFUSAL, REFUSAL_LENGTHS), expected)


def test_npo_by_hand() -> None:
    ratios = [0.125 / 0.25, 0.9 / 0.3]
    # -log sigmoid(-b log r) = log(1 + r^b)
    check(npo(LOGPS, REF, beta=0.1), sum(2 / 0.1 * math.log(1 + ratio**0.1) for ratio in ratios) / 2)


def test_dpo_by_hand() -> None:
    answer, refusal = [0.125 / 0.25, 0.9 / 0.3], [0.2 / 0.1, 0.06 / 0.06]
    # -log sigmoid(b log r) = log(1 + r^-b), r = refusal's ratio / answer's ratio
    expected = sum(2 / 0.3 * math.log(1 + (r / a) ** -0.3) for a, r in zip(answer, refusal, strict=True)) / 2
    check(dpo(LOGPS, REF, REFUSAL, REF_REFUSAL, beta=0.3), expected)


def test_simnpo_by_hand() -> None:
    means = [-math.log(0.125) / 2, -math.log(0.9)]
    expected = sum(2 / 4.5 * math.log(1 + math.exp(-4.5 * (mean - 0.2))) for mean in means) / 2
    check(simnpo(LOGPS, LENGTHS, delta=0.2), expected)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_wga_by_hand(beta: float) -> None:
    first = (0.5**beta * math.log(0.5) + 0.25**beta * math.log(0.25)) / 2
    check(wga(TOKEN_LOGPS, ROWS, LENGTHS, beta=beta), (first + 0.9**beta * math.log(0.9)) / 2)


def test_satimp_by_hand() -> None:
    def token(p: float) -> float:
        return p**5 * (1 - p) * math.log(p)

    check(satimp(TOKEN_LOGPS, ROWS, LENGTHS), ((token(0.5) + token(0.25)) / 2 + token(0.9)) / 2)


def test_undial_by_hand() -> None:
    def cross_entropy(teacher: list[float], student: list[float], token: int) -> float:
        teacher = [value - 10.0 * (place == token) for place, value in enumerate(teacher)]
        normaliser = math.log(sum(map(math.exp, student)))
        weights = [math.exp(value) for value in teacher]
        return sum(w / sum(weights) * (normaliser - s) for w, s in zip(weights, student, strict=True))

    each = [cross_entropy(*case) for case in zip(REF_LOGITS.tolist(), LOGITS.tolist(), TOKENS.tolist(), strict=True)]
    check(undial_of(LOGITS), ((each[0] + each[1]) / 2 + each[2]) / 2)


def test_the_control_has_no_forget_loss() -> None:
    check(finetune_retain(), 0.0)


# -- how they relate to one another -----------------------------------------------------------------------------


def test_preference_losses_begin_at_two_log_two_over_beta() -> None:
    check(npo(REF, REF, beta=0.25), 8 * math.log(2))
    check(dpo(REF, REF, REF_REFUSAL, REF_REFUSAL, beta=0.25), 8 * math.log(2))


def test_npo_gradient_equals_gradient_ascents_before_the_first_update() -> None:
    logps = REF.clone().requires_grad_()
    npo(logps, REF).backward()
    torch.testing.assert_close(logps.grad, torch.full_like(REF, 1 / len(REF)))  # of the mean summed log-probability


def test_weights_of_exponent_0_leave_gradient_ascent() -> None:
    expected = gradient_ascent(LOGPS, LENGTHS).item()
    check(wga(TOKEN_LOGPS, ROWS, LENGTHS, beta=0.0), expected)
    check(satimp(TOKEN_LOGPS, ROWS, LENGTHS, beta1=0.0, beta2=0.0), expected)
    check(satimp(TOKEN_LOGPS, ROWS, LENGTHS, beta1=2.0, beta2=0.0), wga(TOKEN_LOGPS, ROWS, LENGTHS, beta=2.0).item())


def test_undial_is_at_rest_where_the_student_is_the_adjusted_teacher() -> None:
    logits = (REF_LOGITS - 3.0 * torch.nn.functional.one_hot(TOKENS, 3)).requires_grad_()
    undial_of(logits, beta=3.0).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(REF_LOGITS))


# -- gradients --------------------------------------------------------------------------------------------------

GRADIENTS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "gradient_ascent": (lambda x: gradient_ascent(x, LENGTHS), (LOGPS,)),
    "idk": (lambda x: idk(x, REFUSAL_LENGTHS), (REFUSAL,)),
    "npo": (lambda x: npo(x, REF, beta=0.3), (LOGPS,)),
    "dpo": (lambda x, y: dpo(x, REF, y, REF_REFUSAL), (LOGPS, REFUSAL)),
    "simnpo": (lambda x: simnpo(x, LENGTHS), (LOGPS,)),
    "undial": (undial_of, (LOGITS,)),
    "wga": (lambda x: wga(x, ROWS, LENGTHS, beta=0.0), (TOKEN_LOGPS,)),
    "satimp": (lambda x: satimp(x, ROWS, LENGTHS, beta1=0.0, beta2=0.0), (TOKEN_LOGPS,)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_in_float64(name: str) -> None:
    loss, inputs = GRADIENTS[name]
    assert torch.autograd.gradcheck(loss, [tensor.clone().requires_grad_() for tensor in inputs])


@pytest.mark.parametrize(
    ("loss", "weight"),
    [
        (lambda x: wga(x, ROWS, LENGTHS, beta=2.0), lambda p: p**2),
        (lambda x: satimp(x, ROWS, LENGTHS, beta1=3.0, beta2=2.0), lambda p: p**3 * (1 - p) ** 2),
    ],
)
def test_a_tokens_weight_is_a_constant_in_the_gradient(loss: Any, weight: Any) -> None:
    x = TOKEN_LOGPS.clone().requires_grad_()
    loss(x).backward()
    # A record counts by 1/2, and each of the first one's tokens by 1/2 of that.
    torch.testing.assert_close(x.grad, weight(TOKEN_LOGPS.exp()) * torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64))


# -- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf, "0.1"])
def test_a_temperature_that_is_no_number_above_0(beta: Any) -> None:
    for loss in (
        lambda: npo(LOGPS, REF, beta=beta),
        lambda: dpo(LOGPS, REF, REFUSAL, REF_REFUSAL, beta=beta),
        lambda: simnpo(LOGPS, LENGTHS, beta=beta),
        lambda: undial_of(LOGITS, beta=beta),
    ):
        with pytest.raises(ValueError, match=r"^beta is .*: give a number > 0\.$"):
            loss()


@pytest.mark.parametrize("value", [-0.5, math.nan, "1"])
def test_an_exponent_that_is_no_number_from_0(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^beta is .*: give a number ≥ 0\.$"):
        wga(TOKEN_LOGPS, ROWS, LENGTHS, beta=value)
    for name in ("beta1", "beta2"):
        with pytest.raises(ValueError, match=rf"^{name} is .*: give a number ≥ 0\.$"):
            satimp(TOKEN_LOGPS, ROWS, LENGTHS, **{name: value})


def test_a_margin_that_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"^delta is nan: give a finite number\.$"):
        simnpo(LOGPS, LENGTHS, delta=math.nan)
