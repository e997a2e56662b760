"""Evaluation on the way by metrics of the model: `eval_strategy`, `metric_for_best_model`, `load_best_model_at_end`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_dataset
from dareu.masks import WeightMask, random_mask
from dareu.methods.npo import npo
from dareu.metrics import METRICS, measure
from dareu.trainers import (
    DareUConfig,
    DareUTrainer,
    FinetuneConfig,
    FinetuneTrainer,
    UnlearnConfig,
    UnlearnTrainer,
)
from dareu.weights import fingerprint

EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1}
BEST = EVERY_STEP | {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}


class Scripted:
    """Gives numbers one after the other, and keeps the weights that it saw."""

    def __init__(self, *numbers: float) -> None:
        self.numbers: Iterator[float] = iter(numbers)
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        self.seen.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
        return {"forget_rouge": next(self.numbers)}


def evaluated(trainer: Any, name: str = "eval_forget_rouge") -> list[float]:
    return [log[name] for log in trainer.state.log_history if name in log]


@pytest.fixture
def unlearn(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    unlearn_config: Callable[..., UnlearnConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Callable[..., UnlearnTrainer]:
    def make(eval_metrics: Any = None, mask: WeightMask | None = None, **options: Any) -> UnlearnTrainer:
        given = {"retain_dataset": retain_rows, "mask": mask, "processing_class": tokenizer}
        config = unlearn_config(**({"max_steps": 3} | options))
        return UnlearnTrainer(tiny_llama(), npo, config, forget_rows, eval_metrics=eval_metrics, **given)

    return make


def same(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("masked", [False, True])
def test_a_loss_based_training_ends_with_its_best_model(
    masked: bool, unlearn: Callable[..., UnlearnTrainer], tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    model = tiny_llama()
    mask = WeightMask(random_mask(model, 0.5, seed=0), 0.5, "random", fingerprint(model)) if masked else None
    scripted = Scripted(0.5, 0.2, 0.4)
    best = BEST | {"metric_for_best_model": "forget_rouge", "greater_is_better": False}
    trainer = unlearn(scripted, mask, **best)
    trainer.train()
    assert evaluated(trainer) == [0.5, 0.2, 0.4] and trainer.state.best_metric == 0.2
    assert same(trainer.model, scripted.seen[1]) and not same(trainer.model, scripted.seen[2])


def test_a_best_metric_that_is_not_measured_is_one_sentence(unlearn: Callable[..., UnlearnTrainer]) -> None:
    trainer = unlearn(Scripted(0.5, 0.2, 0.4), None, **BEST | {"metric_for_best_model": "forget_roug"})
    with pytest.raises(ValueError, match="metric_for_best_model is 'forget_roug': what is measured are forget_rouge"):
        trainer.train()


def test_the_best_of_a_dareu_training(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> None:
    def lengths(completions: list[str], **columns: Any) -> list[float]:
        return [float(len(completion)) for completion in completions]

    scripted = Scripted(0.3, 0.6)
    best = BEST | {"metric_for_best_model": "forget_rouge", "greater_is_better": True, "max_steps": 2}
    given = {"retain_dataset": retain_rows, "processing_class": tokenizer, "eval_metrics": scripted}
    config = dareu_config(**best, steps_per_generation=1, num_iterations=1)
    trainer = DareUTrainer(tiny_llama(), lengths, config, forget_rows, **given)
    trainer.train()
    assert evaluated(trainer) == [0.3, 0.6] and same(trainer.model, scripted.seen[1])
    # What is logged in training stays in its own lines
    assert not any("reward" in log for log in trainer.state.log_history if "eval_forget_rouge" in log)


@pytest.mark.parametrize(
    "options",
    [
        {},  # every step
        {"eval_steps": 0.5, "save_steps": 0.5},
        {"eval_strategy": "epoch", "save_strategy": "epoch"},
        {"save_strategy": "best", "load_best_model_at_end": False},
    ],
)
def test_a_best_model_that_a_checkpoint_could_not_hold_is_refused(
    options: dict[str, Any], dareu_config: Callable[..., DareUConfig]
) -> None:
    usual = BEST | {"metric_for_best_model": "forget_rouge", "steps_per_generation": 2, "num_iterations": 2}
    with pytest.raises(ValueError, match="eval_steps and save_steps to multiples of 4"):
        dareu_config(**usual | options)
    assert dareu_config(**usual | {"eval_steps": 8, "save_steps": 8}).load_best_model_at_end


def test_fine_tuning_by_what_is_measured_of_the_model(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    forget_rows: Dataset,
    retain_rows: Dataset,
    tmp_path: Path,
) -> None:
    splits = {"forget": forget_rows, "retain": retain_rows, "test": retain_rows}
    chosen = {name: METRICS[name] for name in ("probability", "extraction_strength")}
    settings: dict[str, Any] = {"judges": {}, "forget_owners": ["Lucia Duval"], "metrics": chosen}
    trainer = FinetuneTrainer(
        tiny_llama(),
        FinetuneConfig(
            output_dir=str(tmp_path / "run"),
            learning_rate=1e-2,
            max_steps=4,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="best",
            metric_for_best_model="forget_probability",
            remove_unused_columns=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=encode_dataset(forget_rows, tokenizer),
        data_collator=CompletionCollator(tokenizer),
        processing_class=tokenizer,
        eval_metrics=lambda model: measure(model, tokenizer, splits, **settings).metrics,
    )
    trainer.train()
    first, second = evaluated(trainer, "eval_forget_probability")
    assert second > first and trainer.state.best_metric == second
    assert evaluated(trainer, "eval_forget_extraction_strength")
    now = measure(trainer.model, tokenizer, splits, **settings).metrics["forget_probability"]
    assert now == pytest.approx(second) and trainer.model.training


def test_what_cannot_be_is_refused(unlearn: Callable[..., UnlearnTrainer]) -> None:
    with pytest.raises(ValueError, match="eval_strategy needs eval_metrics"):
        unlearn(**EVERY_STEP)
    with pytest.raises(ValueError, match="eval_metrics gives nan as forget_rouge"):
        unlearn(Scripted(float("nan")), **EVERY_STEP).train()
    with pytest.raises(ValueError, match="both choose the state that a training ends with"):
        unlearn(Scripted(0.1), **BEST, validation_steps=1)
