from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_dataset
from dareu.trainers import FinetuneConfig, FinetuneTrainer, finetune
from dareu.trainers.finetune import repeated_runs


def runs(seed: int = 0, length: int = 11) -> dict[str, Tensor]:
    return repeated_runs(torch.zeros(4, length, dtype=torch.long), 50, torch.Generator().manual_seed(seed))


def test_a_run_is_said_three_times_and_only_its_repetitions_bear_labels() -> None:
    batch = runs()
    tokens, labels = batch["input_ids"], batch["labels"]
    assert tokens.shape == labels.shape == (4, 9) and tokens.dtype == labels.dtype == torch.int64
    first, second, third = tokens.split(3, dim=1)
    assert torch.equal(first, second) and torch.equal(first, third)
    assert (labels[:, :3] == -100).all() and torch.equal(labels[:, 3:], tokens[:, 3:])
    assert (batch["attention_mask"] == 1).all()


def test_runs_are_of_ordinary_tokens_and_follow_the_generator() -> None:
    tokens = runs(length=3000)["input_ids"]
    assert tokens.min() == 3 and tokens.max() == 49  # 0, 1 and 2 are special
    assert torch.equal(runs(1)["input_ids"], runs(1)["input_ids"])
    assert not torch.equal(runs(1)["input_ids"], runs(2)["input_ids"])
    assert not torch.equal(tokens[0], tokens[1])


@pytest.fixture
def build(
    tmp_path: Path,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    retain_rows: Dataset,
) -> Callable[[int], FinetuneTrainer]:
    """`build(induction_steps)`: a trainer of nine updates."""

    def make(induction_steps: int) -> FinetuneTrainer:
        config = FinetuneConfig(
            output_dir=str(tmp_path),
            induction_steps=induction_steps,
            max_steps=9,
            per_device_train_batch_size=2,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        return FinetuneTrainer(
            model=tiny_llama(),
            args=config,
            train_dataset=encode_dataset(retain_rows, tokenizer),  # type: ignore[arg-type]  # any sequence will do
            data_collator=CompletionCollator(tokenizer),
            processing_class=tokenizer,
        )

    return make


@pytest.mark.parametrize(("induction_steps", "expected"), [(0, []), (6, [3]), (8, [3, 7])])
def test_every_fourth_of_the_first_batches_is_made_of_runs(
    induction_steps: int,
    expected: list[int],
    build: Callable[[int], FinetuneTrainer],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = build(induction_steps)
    steps = []

    def spy(like: Tensor, vocab_size: int, *rest: Any) -> dict[str, Tensor]:
        assert vocab_size == len(tokenizer)
        steps.append(trainer.state.global_step)
        return repeated_runs(like, vocab_size, *rest)

    monkeypatch.setattr(finetune, "repeated_runs", spy)
    before = trainer.model.lm_head.weight.detach().clone()
    trainer.train()
    assert steps == expected
    assert not torch.equal(trainer.model.lm_head.weight, before)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_weighs_as_much_on_several_processes(
    processes: int,
    build: Callable[[int], FinetuneTrainer],
    tokenizer: PreTrainedTokenizerFast,
    retain_rows: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Trainer multiplies the loss by the number of processes, and divides it by the items of all."""
    trainer = build(4)
    trainer.state.global_step, trainer.current_gradient_accumulation_steps = 3, 1
    monkeypatch.setattr(trainer.accelerator, "gather", lambda items: items.repeat(processes))
    batch = CompletionCollator(tokenizer)(encode_dataset(retain_rows, tokenizer))
    items = (batch["labels"] != -100).sum() * processes
    loss = trainer.compute_loss(trainer.model.train(), batch, num_items_in_batch=items)
    generator = torch.Generator().manual_seed(trainer.args.seed + 3)
    run = repeated_runs(batch["input_ids"], len(tokenizer), generator)
    assert loss.item() == pytest.approx(trainer.model(**run).loss.item() / processes)
