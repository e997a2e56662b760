"""Terms and their gradients in tiles against plain float64 ones of all logits at once."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import dareu.models.tiles as tiles
from dareu.models.tiles import TERMS, Predictions, token_terms, weighted_term

TOKENS, VOCABULARY, HIDDEN = 23, 50, 6


@pytest.fixture(autouse=True, params=[5, 1000], ids=["tiles", "one tile"])
def tokens_of_a_tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tokens do not divide them all, so that the last tile is a short one."""
    monkeypatch.setattr(tiles, "TILE_ELEMENTS", request.param * VOCABULARY)


def drawn(dtype: torch.dtype = torch.float64, **head: float) -> tuple[Predictions, Predictions, Tensor]:
    """A student, its teacher and the tokens."""
    generator = torch.Generator().manual_seed(0)

    def one(learns: bool) -> Predictions:
        shapes = ((TOKENS, HIDDEN), (VOCABULARY, HIDDEN), (VOCABULARY,))
        parts = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
        return Predictions(*[part.requires_grad_(learns) for part in parts], **head)

    return one(True), one(False), torch.randint(VOCABULARY, (TOKENS,), generator=generator)


def plain(of: Predictions) -> Tensor:
    """All logits in float64."""
    assert of.weight is not None and of.bias is not None
    logits = (of.inputs.double() @ of.weight.double().T + of.bias.double()) * of.scale
    if of.cap is not None:
        logits = of.cap * (logits / of.cap).tanh()
    return logits / of.temperature


def by_definition(name: str, student: Predictions, teacher: Predictions, tokens: Tensor) -> Tensor:
    ours, theirs = plain(student).log_softmax(-1), plain(teacher).log_softmax(-1)
    places = torch.arange(len(tokens))
    if name == "logps":
        return ours[places, tokens]
    if name == "kl":
        return (theirs.exp() * (theirs - ours)).sum(-1)
    p = theirs.exp()[places, tokens]
    if name == "ref_odds":
        return (p / (1 - p)).log()
    others = theirs.exp().index_put((places, tokens), torch.tensor(0.0, dtype=torch.float64)) / (1 - p)[:, None]
    return -(others * ours).sum(-1)


def gradients(loss: Tensor, student: Predictions) -> Sequence[Tensor]:
    return torch.autograd.grad(loss, [student.inputs, student.weight, student.bias])  # type: ignore[list-item]


HEADS: dict[str, dict[str, float]] = {
    "linear": {},
    "scaled": {"scale": 0.5, "temperature": 2.0},
    "capped": {"scale": 2.0, "cap": 3.0, "temperature": 0.7},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("names", [("logps",), ("kl",), ("kl", "logps"), ("logps", "others_nll", "ref_odds")])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
def test_terms_and_gradients_are_those_of_all_logits(
    names: tuple[str, ...], head: str, dtype: torch.dtype, atol: float
) -> None:
    student, teacher, tokens = drawn(dtype, **HEADS[head])
    exact, exact_teacher, _ = drawn(**HEADS[head])
    found = token_terms(names, student, tokens, teacher if len(names) > 1 or names == ("kl",) else None)
    assert found.shape == (1, len(names), TOKENS) and found.dtype == dtype
    expected = torch.stack([by_definition(name, exact, exact_teacher, tokens) for name in names])
    torch.testing.assert_close(found[0].double(), expected, atol=atol, rtol=1e-6)
    weights = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = gradients((found[0] * weights.to(dtype)).sum(), student)
    for mine, theirs in zip(ours, gradients((expected * weights).sum(), exact), strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=4 * atol, rtol=1e-5)


@pytest.mark.parametrize("name", ["logps", "kl"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_weighted_sum_has_the_gradient_of_its_pass(name: str, dtype: torch.dtype) -> None:
    student, teacher, tokens = drawn(dtype)
    exact, exact_teacher, _ = drawn()
    weights = torch.rand(TOKENS, generator=torch.Generator().manual_seed(1)) / TOKENS
    value = weighted_term(name, weights, student, tokens, teacher if name == "kl" else None)
    expected = (by_definition(name, exact, exact_teacher, tokens) * weights).sum()
    torch.testing.assert_close(value.double().reshape(()), expected, atol=1e-6, rtol=0)
    ours = gradients(3 * value.sum(), student)
    for mine, theirs in zip(ours, gradients(3 * expected, exact), strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-6, rtol=0)


def test_a_second_backward_of_a_weighted_sum_is_refused() -> None:
    student, _, tokens = drawn()
    value = weighted_term("logps", torch.ones(TOKENS), student, tokens).sum()
    value.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()  # type: ignore[no-untyped-call]


def test_gradients_go_where_they_are_wanted() -> None:
    student, teacher, tokens = drawn()
    assert student.weight is not None and student.bias is not None
    student.weight.requires_grad_(False)
    expected = gradients(by_definition("kl", student, teacher, tokens).sum(), student._replace(weight=student.bias))[0]
    weighted_term("kl", torch.ones(TOKENS), student, tokens, teacher).sum().backward()  # type: ignore[no-untyped-call]
    assert student.weight.grad is None and student.bias.grad is not None
    torch.testing.assert_close(student.inputs.grad, expected)
    with torch.no_grad():
        assert not weighted_term("kl", torch.ones(TOKENS), student, tokens, teacher).requires_grad


def test_logits_in_place_of_hidden_states() -> None:
    student, teacher, tokens = drawn()
    logits = plain(student).detach().requires_grad_()
    weights = torch.rand(TOKENS, dtype=torch.float64)
    expected = (by_definition("kl", student, teacher, tokens) * weights).sum()
    (by_logits,) = torch.autograd.grad(expected, [whole := plain(student)], allow_unused=True)
    assert by_logits is None  # other logits than those of the loss
    value = weighted_term("kl", weights, Predictions(logits), tokens, Predictions(plain(teacher))).sum()
    torch.testing.assert_close(value, expected)
    (found,) = torch.autograd.grad(value, [logits])
    mass = plain(student).softmax(-1) - plain(teacher).softmax(-1)
    torch.testing.assert_close(found, weights[:, None] * mass)
    assert whole.shape == found.shape


def test_the_divergence_is_zero_and_flat_at_the_teacher() -> None:
    student, _, tokens = drawn(torch.float32)
    value = token_terms(("kl",), student, tokens, student)
    assert value.abs().max() == 0
    assert max(float(part.abs().max()) for part in gradients(value.sum(), student)) == 0


def test_odds_of_a_token_that_is_nearly_sure() -> None:
    """1 − p would have no digit left in float32."""
    logits = torch.tensor([[30.0, 0.0, 1.0]])
    odds = token_terms(("others_nll", "ref_odds"), Predictions(logits), torch.tensor([0]), Predictions(logits))[0]
    rest = torch.tensor([0.0, 1.0]).softmax(-1)
    assert odds[0, 0].item() == pytest.approx(30 * rest[0].item() + 29 * rest[1].item(), rel=1e-6)
    assert odds[1, 0].item() == pytest.approx(30 - torch.tensor([0.0, 1.0]).logsumexp(-1).item(), rel=1e-6)


@pytest.mark.parametrize("compute", [token_terms, lambda names, *rest: weighted_term(names[0], torch.ones(23), *rest)])
def test_under_autocast_products_alone_are_in_bfloat16(compute: Callable[..., Tensor]) -> None:
    student, teacher, tokens = drawn(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = compute(("kl",), student, tokens, teacher).sum()
        logits = [torch.nn.functional.linear(*part[:3]).float() for part in (student, teacher)]
    ours, theirs = (part.log_softmax(-1) for part in logits)
    expected = (theirs.exp() * (theirs - ours)).sum()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-6)
    for mine, plainly in zip(gradients(value, student), gradients(expected, student), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, plainly, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("number", [HIDDEN - 3, TOKENS])
def test_what_is_kept_outlives_the_weight_that_it_was_made_with(stays: bool, trained: bool, number: int) -> None:
    made, _, _ = drawn()
    assert made.weight is not None
    made.weight.requires_grad_(trained)
    made = made._replace(inputs=made.inputs[:number].detach(), temperature=2.0)
    expected = made.logits(slice(None)).detach().clone()
    kept = made.kept(stays=stays)
    if stays and not trained:
        assert kept.weight is made.weight
    else:
        assert (kept.weight is None) == (number < HIDDEN)  # whichever of the two is smaller
        with torch.no_grad():
            made.weight.add_(1)
    torch.testing.assert_close(kept.logits(slice(None)), expected)
    torch.testing.assert_close(kept.logits(slice(1, 3)), expected[1:3])


def test_no_tokens_are_no_terms() -> None:
    student, teacher, tokens = drawn()
    nothing = [part._replace(inputs=part.inputs[:0]) for part in (student, teacher)]
    assert token_terms(TERMS[:2], nothing[0], tokens[:0], nothing[1]).shape == (1, 2, 0)
    value = weighted_term("kl", torch.zeros(0), nothing[0], tokens[:0], nothing[1]).sum()
    value.backward()  # type: ignore[no-untyped-call]
    assert student.weight is not None and student.weight.grad is not None and not student.weight.grad.any()


@pytest.mark.parametrize("number", [4, 512])
def test_slopes_of_a_mean_over_many_tokens_do_not_round_to_0_in_float16(number: int) -> None:
    """Loss scaling comes behind the tiles' backward pass, and cannot bring back what was lost in them."""
    generator = torch.Generator().manual_seed(0)
    states, weight = torch.randn(number, 16, generator=generator), torch.randn(20_000, 16, generator=generator) * 0.2
    tokens = torch.randint(0, 20_000, (number,), generator=generator)
    teacher = Predictions(states, weight + torch.randn(weight.shape, generator=generator) * 0.003)
    found = []
    for dtype in (None, torch.float16):
        ours, head = states.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            mean = torch.full((number,), 1 / number)
            (2.0**16 * weighted_term("kl", mean, Predictions(ours, head), tokens, teacher).sum()).backward()
        found.append([part.grad / 2.0**16 for part in (ours, head)])
    for plain, rounded in zip(*found, strict=True):
        assert torch.cosine_similarity(plain.flatten(), rounded.flatten(), 0) > 0.99
        assert float(rounded.norm() / plain.norm()) == pytest.approx(1, abs=0.05)
