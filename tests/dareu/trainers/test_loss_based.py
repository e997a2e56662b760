from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_dataset
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.methods.finetune_retain import finetune_retain
from dareu.methods.gradient_ascent import gradient_ascent
from dareu.methods.npo import npo
from dareu.metrics import answer_nll
from dareu.plugins import needed_parameters
from dareu.trainers import UnlearnConfig, UnlearnTrainer
from dareu.weights import fingerprint

Build = Callable[..., UnlearnTrainer]


@pytest.fixture
def build(
    tokenizer: PreTrainedTokenizerFast,
    unlearn_config: Callable[..., UnlearnConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Build:
    def make(model: LlamaForCausalLM, loss: Any = npo, mask: Any = None, **options: Any) -> UnlearnTrainer:
        return UnlearnTrainer(
            model,
            loss,
            unlearn_config(**options),
            forget_rows,
            retain_dataset=retain_rows,
            mask=mask,
            processing_class=tokenizer,
        )

    return make


def test_original_logps_are_those_of_the_untouched_model(
    build: Build,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    forget_rows: Dataset,
) -> None:
    model = tiny_llama()
    expected = -answer_nll(model, tokenizer, list(forget_rows["prompt"]), list(forget_rows["completion"])).total
    trainer = build(model)
    assert trainer._original_logps().tolist() == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("loss", [npo, gradient_ascent])
def test_first_loss_by_the_equation(build: Build, tiny_llama: Callable[..., LlamaForCausalLM], loss: Any) -> None:
    trainer = build(tiny_llama(), loss, retain_loss="kl", max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert abs(logged["retain_kl"]) < 1e-6  # π is π_N
    if loss is npo:
        assert logged["forget_loss"] == pytest.approx(20 * torch.tensor(2.0).log().item(), rel=1e-4)
    assert logged["loss"] == pytest.approx(logged["forget_loss"], rel=1e-3)


def test_accumulation_changes_nothing(build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    norms = []
    for accumulation, size in ((1, 2), (2, 1)):
        trainer = build(
            tiny_llama(),
            gradient_ascent,
            retain_loss="nll",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            retain_batch_size=2 // accumulation,
            max_steps=1,
        )
        trainer.train()
        norms.append(trainer.state.log_history[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize("loss", [npo, gradient_ascent])
def test_masked_unlearning_forgets_and_moves_nothing_else(
    build: Build,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    forget_rows: Dataset,
    retain_rows: Dataset,
    loss: Any,
) -> None:
    model = tiny_llama()
    memorise(model, tokenizer, [forget_rows, retain_rows])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    nll = {rows: mean_nll(model, tokenizer, data) for rows, data in (("f", forget_rows), ("r", retain_rows))}
    mask = WeightMask(random_mask(model, 0.5, seed=0), 0.5, "random", fingerprint(model))
    build(model, loss, mask, max_steps=12, learning_rate=2e-3, retain_batch_size=4).train()
    assert count_moved_outside(before, model, mask) == 0
    forgotten = mean_nll(model, tokenizer, forget_rows) - nll["f"]
    lost = mean_nll(model, tokenizer, retain_rows) - nll["r"]
    assert forgotten > 0.5 and lost < 0.3 * forgotten


def memorise(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, parts: list[Dataset]) -> None:
    batch = CompletionCollator(tokenizer)([record for part in parts for record in encode_dataset(part, tokenizer)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def mean_nll(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Dataset) -> float:
    return float(answer_nll(model, tokenizer, list(rows["prompt"]), list(rows["completion"])).mean.mean())


def test_a_loss_names_the_tensors_it_needs() -> None:
    def loss(lengths: Any, ref_logps: Any, *, beta: float = 1.0) -> Any: ...

    offered = UnlearnTrainer.invented_tensors(400)
    assert needed_parameters(loss, offered, {"beta": 2.0}, "The loss") == ("lengths", "ref_logps")
    with pytest.raises(ValueError, match="no option gamma: its options are beta"):
        needed_parameters(loss, offered, {"gamma": 1}, "The loss")
    with pytest.raises(ValueError, match=rf"asks for hidden: there are {', '.join(offered)}\."):
        needed_parameters(lambda hidden: hidden, offered, {}, "The loss")


@pytest.mark.parametrize(
    ("loss", "options", "complaint"),
    [
        (npo, {"loss_kwargs": {"beta": 0}}, "beta is 0"),
        (npo, {"forget_coef": float("nan")}, "forget_coef is nan"),
        (lambda logps: logps, {}, r"shape \(2,\)"),
        (finetune_retain, {"retain_loss": "none"}, "Without a forget loss"),
        (finetune_retain, {"retain_loss": "nll", "retain_coef": 0.0}, "Without a forget loss"),
        (finetune_retain, {"retain_loss": "kl"}, "Without a forget loss"),  # π_N is where the KL is least
        (npo, {"refusals": "common"}, "refusals has no effect"),
    ],
)
def test_what_could_not_be_trained_is_refused(
    loss: Any, options: dict[str, Any], complaint: str, build: Build, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    with pytest.raises(ValueError, match=complaint):
        build(tiny_llama(), loss, **options)


def test_no_rows_are_refused(build: Build, tiny_llama: Callable[..., LlamaForCausalLM], forget_rows: Dataset) -> None:
    with pytest.raises(ValueError, match="no forget rows"):
        UnlearnTrainer(tiny_llama(), npo, build(tiny_llama(), npo).args, forget_rows.select([]))


def test_rows_that_no_update_looks_at_are_said_beforehand(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], caplog: pytest.LogCaptureFixture
) -> None:
    build(tiny_llama(), npo, max_steps=1, per_device_train_batch_size=1).train()
    assert "1 of 2 forget rows are looked at in none of 1 updates, so that they may not be forgotten" in caplog.text
    caplog.clear()
    build(tiny_llama(), npo, max_steps=2, per_device_train_batch_size=1).train()
    build(tiny_llama(), finetune_retain, max_steps=1, per_device_train_batch_size=1, retain_loss="nll").train()
    assert "forget rows" not in caplog.text
