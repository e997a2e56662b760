from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import chain

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, EncodedRecord, encode_dataset
from dareu.trainers.retain import RetainTerm

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def records(tokenizer: PreTrainedTokenizerFast) -> list[EncodedRecord]:
    """Prompts and answers of quite different lengths."""
    pairs = [
        ("Who wrote?", " Lucia Duval."),
        ("Where was Kofi Mensah born, and when was it?", " In Accra."),
        ("Born?", " Sanna Thorne was born in Malmo in 1975, near the sea, and writes short stories about it."),
    ]
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    return encode_dataset(Dataset.from_list(rows), tokenizer)


@pytest.fixture(scope="module")
def teacher(tiny_llama: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    return tiny_llama(seed=1, initializer_range=0.3)


@pytest.fixture(scope="module")
def student(tiny_llama: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    return tiny_llama(seed=2, initializer_range=0.3)


@pytest.fixture
def term(tokenizer: PreTrainedTokenizerFast, teacher: LlamaForCausalLM) -> Callable[..., RetainTerm]:
    def build(records: list[EncodedRecord], batch_size: int = 3, loss: str = "kl", seed: int = 0, side: str = "right"):
        return RetainTerm(
            records,
            CompletionCollator(tokenizer, padding_side=side),  # type: ignore[arg-type]
            batch_size=batch_size,
            loss=loss,  # type: ignore[arg-type]
            original=lambda: nullcontext(teacher),
            seed=seed,
        )

    return build


def value(term: RetainTerm, model: LlamaForCausalLM) -> float:
    with torch.no_grad():
        return float(term(model, term.prepare(0, CPU)))


@torch.no_grad()
def answer_logps(model: LlamaForCausalLM, record: EncodedRecord) -> Tensor:
    """Log-probabilities over the vocabulary at each answer token, of one record without padding."""
    ids = torch.tensor([[*record.prompt_ids, *record.completion_ids]])
    return model(ids).logits[0, len(record.prompt_ids) - 1 : -1].double().log_softmax(-1)


def by_definition(loss: str, teacher: LlamaForCausalLM, student: LlamaForCausalLM, record: EncodedRecord) -> float:
    ours = answer_logps(student, record)
    if loss == "nll":
        return float(-sum(ours[i, token] for i, token in enumerate(record.completion_ids)) / len(ours))
    theirs = answer_logps(teacher, record)
    return float((theirs.exp() * (theirs - ours)).sum(-1).mean())


@pytest.mark.parametrize(("number", "batch_size"), [(5, 3), (5, 12), (4, 4), (1, 2)])
def test_the_stream_of_rows_covers_every_row_once_a_pass(
    number: int, batch_size: int, term: Callable[..., RetainTerm], records: list[EncodedRecord]
) -> None:
    rows = term(records[:1] * number, batch_size).rows
    assert all(len(rows(step)) == batch_size for step in range(3))
    stream = list(chain.from_iterable(rows(step) for step in range(6 * number)))
    passes = [stream[start : start + number] for start in range(0, 6 * number, number)]
    assert all(sorted(one) == list(range(number)) for one in passes)
    assert number == 1 or len(set(map(tuple, passes))) > 1


def test_the_order_follows_the_seed_and_differs_between_passes(
    term: Callable[..., RetainTerm], records: list[EncodedRecord]
) -> None:
    many = records[:1] * 50
    first, again, other = (term(many, 50, seed=seed).rows for seed in (1, 1, 2))
    assert first(0) == again(0) and first(7) == again(7)
    assert first(0) != first(1) and first(0) != other(0) and first(1) != other(0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("loss", ["kl", "nll"])
def test_the_term_is_its_definition_whatever_the_padding(
    loss: str,
    side: str,
    term: Callable[..., RetainTerm],
    records: list[EncodedRecord],
    teacher: LlamaForCausalLM,
    student: LlamaForCausalLM,
) -> None:
    expected = [by_definition(loss, teacher, student, record) for record in records]
    assert value(term(records, loss=loss, side=side), student) == pytest.approx(sum(expected) / 3, abs=1e-5)
    for record, alone in zip(records, expected, strict=True):
        assert value(term([record], 1, loss=loss, side=side), student) == pytest.approx(alone, abs=1e-5)
    assert min(expected) > 0.1


def test_the_kl_is_zero_at_the_teacher_and_has_no_slope_there(
    term: Callable[..., RetainTerm], records: list[EncodedRecord], teacher: LlamaForCausalLM
) -> None:
    retain = term(records)
    loss = retain(teacher, retain.prepare(0, CPU))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    gradients = torch.autograd.grad(loss, list(teacher.parameters()))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-6


def test_only_the_student_gets_gradients(
    term: Callable[..., RetainTerm],
    records: list[EncodedRecord],
    student: LlamaForCausalLM,
    teacher: LlamaForCausalLM,
) -> None:
    retain = term(records)
    with torch.no_grad():
        batch = retain.prepare(0, CPU)
    retain(student, batch).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    student.zero_grad()


def test_no_retained_rows_are_refused(term: Callable[..., RetainTerm]) -> None:
    with pytest.raises(ValueError, match="retain dataset is empty"):
        term([])


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_teacher_that_is_asked_once_says_what_it_says_batch_by_batch(
    side: str, term: Callable[..., RetainTerm], records: list[EncodedRecord], student: LlamaForCausalLM
) -> None:
    asked, heard = term(records, 2, side=side), term(records, 2, side=side)
    for step in range(5):
        values = [each(student, each.prepare(step, CPU, number)) for each, number in ((asked, 1), (heard, 5))]
        torch.testing.assert_close(*values, rtol=1e-5, atol=1e-7)


def test_what_was_heard_does_not_change_with_the_weights_of_its_teacher(
    term: Callable[..., RetainTerm],
    records: list[EncodedRecord],
    tiny_llama: Callable[..., LlamaForCausalLM],
    student: LlamaForCausalLM,
) -> None:
    model = tiny_llama(seed=1, initializer_range=0.3)  # trained itself, as under a mask
    heard, plain = term(records), term(records)
    heard.original = lambda: nullcontext(model)
    with torch.no_grad():
        before = plain(student, plain.prepare(1, CPU))
        heard.prepare(0, CPU, 2)
        for parameter in model.parameters():
            parameter.add_(1.0)
        torch.testing.assert_close(heard(student, heard.prepare(1, CPU, 2)), before, rtol=1e-5, atol=1e-7)


def test_a_teacher_is_asked_batch_by_batch_where_few_batches_are_wanted_or_memory_is_short(
    term: Callable[..., RetainTerm], records: list[EncodedRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(number: int) -> int:
        times = 0
        made = term(records, 1)
        original = made.original
        assert original is not None

        def count() -> AbstractContextManager[torch.nn.Module]:
            nonlocal times
            times += 1
            return original()

        made.original = count
        for step in range(number):
            made.prepare(step, CPU, number)
        assert (made.original is None) == (times == 1), "what is not asked again is let go"
        return times

    assert (asked(5), asked(6)) == (5, 1)
    monkeypatch.setattr("dareu.trainers.retain.MOST_BYTES", 10)
    assert asked(6) == 7


def test_an_engine_around_the_teacher_may_have_a_config_of_its_own(
    term: Callable[..., RetainTerm], records: list[EncodedRecord], teacher: LlamaForCausalLM, student: LlamaForCausalLM
) -> None:
    engine = torch.nn.Module()
    engine.module, engine.config, engine.forward = teacher, {"zero": 1}, teacher.forward  # type: ignore[assignment]
    heard, plain = term(records), term(records)
    heard.original = lambda: nullcontext(engine)
    values = [each(student, each.prepare(0, CPU, number)) for each, number in ((heard, 5), (plain, 1))]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-7)
