import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from dareu.masks import WeightScores, score_weights

VOCABULARY = 50


def make_records(count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Pairs of prompt and completion ids, no two of the same length."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(length: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()

    return [(tokens(3 + n % 4), tokens(2 + n)) for n in range(count)]


def batches(records: list[tuple[list[int], list[int]]], size: int, side: str = "right") -> list[dict[str, Tensor]]:
    result = []
    for start in range(0, len(records), size):
        rows = records[start : start + size]
        width = max(len(prompt) + len(completion) for prompt, completion in rows)
        batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for prompt, completion in rows:
            ids, pad = prompt + completion, width - len(prompt) - len(completion)
            row = {
                "input_ids": (ids, 0),
                "attention_mask": ([1] * len(ids), 0),
                "labels": ([-100] * len(prompt) + completion, -100),
            }
            for key, (values, filler) in row.items():
                padding = [filler] * pad
                batch[key].append(values + padding if side == "right" else padding + values)
        result.append({key: torch.tensor(values) for key, values in batch.items()})
    return result


def wagle_scores(model: nn.Module, *sides: list[dict[str, Tensor]], **options: Any) -> WeightScores:
    return score_weights(model, "wagle", *sides, **options)


class Bigram(nn.Module):
    """The smallest language model: the next token from this one alone, with dropout."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, VOCABULARY)
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)
        self.to(dtype)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool, logits_to_keep: int
    ) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.dropout(self.embedding(input_ids[:, -logits_to_keep:]))))


def mean_gradients_by_hand(model: nn.Module, records: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """In float64, one record and one token after the other."""
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for prompt, completion in records:
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
        nll = torch.zeros((), dtype=torch.float64)
        for t, token in enumerate(completion):
            nll = nll - torch.log_softmax(logits[len(prompt) + t - 1], dim=-1)[token]
        model.zero_grad()
        (nll / len(completion)).backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad
    return {name: total / len(records) for name, total in sums.items()}


def assert_scores_close(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert list(actual) == list(expected)
    for name, wanted in expected.items():
        assert actual[name].dtype == torch.float32
        difference = (actual[name].double() - wanted.double()).abs().max()
        assert difference <= tolerance * wanted.abs().max(), name


@pytest.mark.parametrize("tied", [True, False])
def test_scores_are_the_equation_in_float64(tiny_llama: Callable[..., nn.Module], tied: bool) -> None:
    model = tiny_llama(hidden_size=16, intermediate_size=24, tie_word_embeddings=tied)
    forget, retain = make_records(5, seed=1), make_records(7, seed=2)
    exact = copy.deepcopy(model).double()
    theta = {name: p.detach() for name, p in exact.named_parameters()}
    assert ("lm_head.weight" in theta) is not tied
    g_f, g_r = mean_gradients_by_hand(exact, forget), mean_gradients_by_hand(exact, retain)

    def norm(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        return math.sqrt(sum(float((a[name] * b[name]).square().sum()) for name in a))

    balance = norm(g_r, g_f) / norm(theta, g_f)
    for gamma, interference, weight in [
        (0.0, 1.0, 0.0),
        (1e-3, 1e3, 1.0),
        (3.0, 1 / 3, 1.0),
        (math.inf, 0.0, 1.0),
        ("auto", 1 / balance, 1.0),
    ]:
        scores = wagle_scores(model, batches(forget, 3), batches(retain, 4), gamma=gamma)
        expected = {n: weight * theta[n] * g_f[n] - interference * g_r[n] * g_f[n] for n in theta}
        assert_scores_close(scores, expected)
        assert scores.gamma == pytest.approx(balance if gamma == "auto" else gamma, rel=1e-5)


@pytest.mark.parametrize("positions", ["relative", "absolute"])
def test_scores_depend_on_neither_batching_nor_padding_side(
    tiny_llama: Callable[..., nn.Module], positions: str
) -> None:
    if positions == "relative":
        model = tiny_llama(hidden_size=16, intermediate_size=24)
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=40, n_embd=16, n_layer=1, n_head=2))
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2, generator=generator)
    forget, retain = make_records(6, seed=1), make_records(6, seed=2)
    one_by_one = wagle_scores(model, batches(forget, 1), batches(retain, 1))
    for size, side in [(6, "right"), (4, "right"), (4, "left")]:
        scores = wagle_scores(model, batches(forget, size, side), batches(retain, size, side))
        assert_scores_close(scores, one_by_one)


def test_gradients_of_a_bfloat16_model_are_summed_in_float32() -> None:
    model = Bigram(dtype=torch.bfloat16)
    (batch,) = batches(make_records(1, seed=1), 1)
    once = wagle_scores(model, [batch], [batch], gamma=0)
    often = wagle_scores(model, [batch], [batch] * 600, gamma=0)  # a bfloat16 sum stands still at 256 of them
    assert_scores_close(often, once)


def test_the_model_is_left_as_it_was() -> None:
    model = Bigram()
    model.train()
    model.head.eval()
    model.embedding.weight.requires_grad_(False)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    records = batches(make_records(4, seed=1), 2)

    def assert_untouched() -> None:
        assert [m.training for m in (model, model.embedding, model.dropout, model.head)] == [
            True,
            True,
            True,
            False,
        ]
        assert [p.requires_grad for p in model.parameters()] == [False, True, True]
        assert all(p.grad is None for p in model.parameters())

    with torch.no_grad():
        scores = wagle_scores(model, records, records)
    assert_untouched()
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert scores["embedding.weight"].any()  # frozen parameters are scored too
    assert_scores_close(scores, wagle_scores(model.eval(), records, records), tolerance=0)  # no dropout

    model.train()
    model.head.eval()
    with pytest.raises(ValueError, match="no retain batch"):
        wagle_scores(model, records, [])
    assert_untouched()


def test_a_gradient_that_is_not_finite_names_the_parameter() -> None:
    model = Bigram()
    model.embedding.weight.data[7] = math.nan
    clean = batches([([3, 4], [5, 6])], 1)
    with pytest.raises(ValueError, match=r"retain gradient of parameter 'embedding.weight' is not finite"):
        wagle_scores(model, clean, batches([([3, 7], [7, 6])], 1))


def test_a_gamma_too_small_for_float32_is_refused() -> None:
    records = batches(make_records(2, seed=1), 2)
    with pytest.raises(ValueError, match="beyond float32"):
        wagle_scores(Bigram(), records, records, gamma=1e-45)


@pytest.mark.parametrize("gamma", [-1.0, math.nan, "balanced"])
def test_a_gamma_out_of_range_is_refused(gamma: float) -> None:
    records = batches(make_records(2, seed=1), 2)
    with pytest.raises(ValueError, match="gamma is"):
        wagle_scores(Bigram(), records, records, gamma=gamma)


def test_a_record_without_completion_is_refused() -> None:
    records = batches(make_records(2, seed=1), 2)
    empty = batches([([3, 4], [5]), ([3, 4, 5], [])], 2)
    with pytest.raises(ValueError, match="forget record has no completion token"):
        wagle_scores(Bigram(), empty, records)


def test_weights_that_take_no_gradient_are_refused() -> None:
    model = Bigram()
    model.head.bias = nn.Parameter(torch.zeros(VOCABULARY, dtype=torch.int8), requires_grad=False)
    records = batches(make_records(2, seed=1), 2)
    with pytest.raises(ValueError, match=r"'head.bias' has dtype torch.int8"):
        wagle_scores(model, records, records)


def test_auto_needs_two_terms_to_balance() -> None:
    model = Bigram()
    records = batches(make_records(2, seed=1), 2)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.head.bias.data[5] = 200.0  # sure of token 5: no gradient on a record that is all fives
    sure = batches([([3, 4], [5, 5])], 1)
    with pytest.raises(ValueError, match="nothing to balance"):
        wagle_scores(model, records, sure)
