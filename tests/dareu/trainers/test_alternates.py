"""What AltPO teaches in place of the answers: a column, or answers of the uninformed model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data.encoding import encode_dataset
from dareu.methods.altpo import altpo
from dareu.methods.npo import npo
from dareu.trainers import UnlearnConfig, UnlearnTrainer, _alternates

Build = Callable[..., UnlearnTrainer]


@pytest.fixture
def build(
    memorised: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    unlearn_config: Callable[..., UnlearnConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Build:
    def make(rows: Dataset | None = None, loss: Any = altpo, **options: Any) -> UnlearnTrainer:
        keywords = {name: options.pop(name) for name in ("base_model", "base_tokenizer") if name in options}
        return UnlearnTrainer(
            options.pop("model", None) or memorised(),
            loss,
            unlearn_config(**({"max_completion_length": 40} | options)),
            forget_rows if rows is None else rows,
            retain_dataset=retain_rows,
            processing_class=tokenizer,
            **keywords,
        )

    return make


@pytest.fixture
def base(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, retain_rows: Dataset
) -> LlamaForCausalLM:
    model = tiny_llama(seed=7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        for record in encode_dataset(retain_rows, tokenizer):
            ids = torch.tensor([[*record.prompt_ids, *record.completion_ids]])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def said(trainer: UnlearnTrainer, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [
        tokenizer.decode(record.completion_ids, skip_special_tokens=True) for record in trainer._instead["alternate"]
    ]


def test_a_column_of_one_or_of_several(build: Build, tokenizer: PreTrainedTokenizerFast, forget_rows: Dataset) -> None:
    one = forget_rows.add_column("other", ["Lucia Duval was born in Lima.", "Lucia Duval lives near Lund."])
    trainer = build(one, alternates="other")
    assert said(trainer, tokenizer) == [" Lucia Duval was born in Lima.", " Lucia Duval lives near Lund."]
    several = forget_rows.add_column("other", [["In Lima.", "In Lund.", "In Rome."], ["Near Lima.", "Near Lund."]])
    trainer = build(several, alternates="other", num_alternates=2)
    assert said(trainer, tokenizer) == [" In Lima.", " In Lund.", " Near Lima.", " Near Lund."]
    golds = [record.completion_ids for record in encode_dataset(forget_rows, tokenizer)]
    assert [record.completion_ids for record in trainer._records] == [golds[0]] * 2 + [golds[1]] * 2
    trainer.train()
    assert trainer.state.log_history[0]["forget_loss"] == pytest.approx(20 * torch.tensor(2.0).log().item(), rel=1e-4)


def test_answers_of_the_base_model_are_drawn_once_and_taught(
    build: Build, tokenizer: PreTrainedTokenizerFast, base: LlamaForCausalLM, answers_nll: Callable[..., Any]
) -> None:
    drawn: list[int] = []
    generate = base.generate
    base.generate = lambda *args, **options: drawn.append(1) or generate(*args, **options)  # type: ignore
    first = build(alternates="uninformed", base_model=base, num_alternates=2)
    assert not drawn and not first._instead  # nothing is written before a training
    first.train()
    texts = said(first, tokenizer)
    assert drawn and len(texts) == 4 and all(text.strip() for text in texts)
    drawn.clear()
    again = build(alternates="uninformed", base_model=base, num_alternates=2, max_steps=12, learning_rate=3e-3)
    before, _ = answers_nll(again.model)
    again.train()
    assert not drawn and said(again, tokenizer) == texts
    after, _ = answers_nll(again.model)
    assert after > before + 0.5  # the answers become unlikely
    cold = build(alternates="uninformed", base_model=base, num_alternates=2, uninformed_temperature=1e-3)
    cold.train()
    assert drawn and [*dict.fromkeys(said(cold, tokenizer))] == said(cold, tokenizer)[::2]


@pytest.mark.parametrize(
    ("drawn", "golds"),
    [
        ([[[9, 2]], [[7, 2], [8, 2]]], [0, 0, 1, 1]),
        ([[], [[7, 2]]], [1, 1]),
        ([[list(range(3, 400))], [[7, 2]]], [1, 1]),
    ],
)
def test_a_row_goes_on_with_the_alternates_it_has_or_is_left_out(
    drawn: list[list[list[int]]],
    golds: list[int],
    build: Build,
    base: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    forget_rows: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_alternates, "uninformed_answers", lambda *args, **options: drawn)
    trainer = build(alternates="uninformed", base_model=base, num_alternates=2, max_steps=2)
    trainer.train()
    taught = [record.completion_ids for record in trainer._instead["alternate"]]
    assert taught == ([[9, 2], [9, 2]] if 0 in golds else []) + ([[7, 2], [8, 2]] if 0 in golds else [[7, 2], [7, 2]])
    records = encode_dataset(forget_rows, tokenizer)
    assert trainer._records == [records[row] for row in golds] and len(trainer.train_dataset) == len(golds)
    assert ("1 of 2 rows have no alternate" in caplog.text) == (0 not in golds)


def test_no_copy_of_a_model_is_kept_that_is_asked_nothing_more(build: Build, base: LlamaForCausalLM) -> None:
    trainer = build(alternates="uninformed", base_model=base, retain_loss="nll")
    assert trainer.original is not None
    trainer.train()
    assert trainer.original is None and trainer._retain.original is None and trainer._draw is None


def test_nothing_is_trained_where_no_row_has_an_alternate(
    build: Build, base: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_alternates, "uninformed_answers", lambda *args, **options: [[], []])
    with pytest.raises(ValueError, match="no answer to any row"):
        build(alternates="uninformed", base_model=base).train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alternates": "uninformed"}, "give base_model"),
        ({"alternates": "gone"}, "which is no column"),
        ({"alternates": None}, "The loss needs alternates"),
        ({"alternates": "few"}, "Row 1 has 0 alternates"),
        ({"alternates": "few", "num_alternates": 0}, "num_alternates is 0"),
        ({"alternates": "few", "loss": npo}, "alternates has no effect"),
    ],
)
def test_what_cannot_be_is_refused(build: Build, forget_rows: Dataset, options: dict[str, Any], message: str) -> None:
    rows = forget_rows.add_column("few", [["In Lima."], ["  "]])
    with pytest.raises(ValueError, match=message):
        build(rows, **options)


def test_every_row_of_an_update_counts_as_much(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], forget_rows: Dataset, retain_rows: Dataset
) -> None:
    """Three rows in micro-batches of two and one: the update is that of one batch of three."""
    rows = Dataset.from_list([*forget_rows, retain_rows[0]])
    moved = []
    for options in (
        {"per_device_train_batch_size": 3},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    ):
        model = tiny_llama()
        trainer = build(
            rows, loss=npo, model=model, retain_loss="none", max_steps=1, optim="sgd", weight_decay=0.0,
            max_grad_norm=0.0, data_seed=3, **options,
        )  # fmt: skip
        trainer.train()
        moved.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
    for name, weight in moved[0].items():
        torch.testing.assert_close(moved[1][name], weight, atol=1e-6, rtol=1e-4)
