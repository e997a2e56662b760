"""Validation on the way: the best state is kept and is what a training ends with."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.masks import WeightMask, random_mask
from dareu.methods.npo import npo
from dareu.trainers import UnlearnConfig, UnlearnTrainer
from dareu.trainers._best_state import BestState
from dareu.trainers._dual import Dual
from dareu.weights import fingerprint

Build = Callable[..., UnlearnTrainer]


@pytest.fixture
def build(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    unlearn_config: Callable[..., UnlearnConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Build:
    def make(gaps: list[float] | None = None, **options: Any) -> UnlearnTrainer:
        keywords = {name: options.pop(name) for name in ("mask", "peft_config", "validate") if name in options}
        if gaps is not None:
            given = iter(gaps)
            keywords["validate"] = lambda model: {"gap": next(given), "forget_attribution": 0.5, "fluency_nll": 1.0}
        return UnlearnTrainer(
            options.pop("model", None) or tiny_llama(),
            npo,
            unlearn_config(**({"validation_steps": 1, "max_steps": 4} | options)),
            forget_rows,
            retain_dataset=retain_rows,
            processing_class=tokenizer,
            **keywords,
        )

    return make


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def states_of(trainer: UnlearnTrainer) -> list[dict[str, torch.Tensor]]:
    """The model's weights before the first and after every update of the training that follows."""
    states = [weights(trainer.model)]
    step = trainer.training_step

    def watched(*args: Any, **options: Any) -> Any:
        if len(states) <= trainer.state.global_step:
            states.append(weights(trainer.model))
        return step(*args, **options)

    trainer.training_step = watched  # type: ignore[method-assign]
    trainer.train()
    return states


@pytest.mark.parametrize("kind", ["all", "mask", "lora"])
def test_training_ends_with_the_best_state(
    kind: str, build: Build, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    model, options = tiny_llama(), {}
    if kind == "mask":
        options["mask"] = WeightMask(random_mask(model, 0.7, seed=0), 0.7, "random", fingerprint(model))
    if kind == "lora":
        options["peft_config"] = LoraConfig(r=2, target_modules="all-linear")
    trainer = build([0.9, 0.4, 0.2, 0.3, 0.5], model=model, **options)  # before the first update, and after each
    states = states_of(trainer)
    assert trainer.best is not None and trainer.best.step == 2 and trainer.state.global_step == 4
    assert all(torch.equal(states[2][name], weight) for name, weight in trainer.model.named_parameters())
    assert not all(torch.equal(states[3][name], weight) for name, weight in trainer.model.named_parameters())


def test_only_what_a_mask_selects_is_kept(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama()
    mask = WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model))
    best = BestState(mask)
    best.keep(model, 0.5, 1)
    assert sum(len(kept) for kept in best._kept.values()) <= 1.01 * mask.count
    before = weights(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(-0.0)
    best.restore(model)
    for name, weight in model.named_parameters():
        selected = mask[name] if name in mask else torch.zeros_like(weight, dtype=torch.bool)
        assert torch.equal(weight[selected], before[name][selected])
        assert torch.equal(
            weight[~selected].view(torch.int32), torch.full_like(weight[~selected], -0.0).view(torch.int32)
        )


def test_it_stops_after_so_many_validations_that_were_no_better(build: Build) -> None:
    trainer = build([0.9, 0.4, 0.5, 0.6, 0.1, 0.0], early_stopping_patience=2, max_steps=10)
    trainer.train()
    assert trainer.state.global_step == 3 and trainer.best is not None and trainer.best.step == 1


def test_a_second_training_begins_with_the_state_it_finds(build: Build) -> None:
    trainer = build([0.5, 0.1, 0.9, 0.2, 0.3, 0.4], max_steps=2, early_stopping_patience=2)
    trainer.train()
    assert trainer.best is not None and (trainer.best.gap, trainer.best.step) == (0.1, 1)
    trainer.train()
    assert (trainer.best.gap, trainer.best.step) == (0.2, 0)


def test_a_state_whose_fluency_broke_is_never_the_best(build: Build) -> None:
    numbers = iter(
        [
            {"gap": 0.9, "forget_attribution": 0.9, "fluency_nll": 1.0},
            {"gap": 0.5, "forget_attribution": 0.5, "fluency_nll": 1.0},
            {"gap": 0.1, "forget_attribution": 0.0, "fluency_nll": 5.0},
        ]
    )
    trainer = build(validate=lambda model: next(numbers), stop_fluency_nll=3.0, max_steps=10)
    states = states_of(trainer)
    assert trainer.state.global_step == 2 and trainer.best is not None and trainer.best.step == 1
    assert all(torch.equal(states[1][name], weight) for name, weight in trainer.model.named_parameters())


def test_a_training_that_found_nothing_better_says_that_nothing_is_forgotten(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = build([0.2, 0.4, 0.5, 0.6, 0.7])
    before = weights(trainer.model)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert all(torch.equal(before[name], weight) for name, weight in trainer.model.named_parameters())
    assert "nothing has been forgotten" in caplog.text


def test_without_a_gap_the_last_state_stays(build: Build) -> None:
    trainer = build(validate=lambda model: {"forget_attribution": 0.5})
    trainer.train()
    assert trainer.best is not None and trainer.best.gap is None


def test_a_number_that_is_none_is_refused(build: Build) -> None:
    with pytest.raises(ValueError, match="Validation gives nan as gap"):
        build([float("nan")]).train()


def test_the_best_state_survives_an_interruption(build: Build, tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "constant"}
    whole = build([0.9, 0.4, 0.2, 0.3, 0.5], **options)
    states = states_of(whole)
    resumed = build([0.5], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert resumed.best is not None and (resumed.best.step, resumed.best.gap) == (2, 0.2)
    assert all(torch.equal(states[2][name], weight) for name, weight in resumed.model.named_parameters())


def test_a_damaged_best_state_is_refused(tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path) -> None:
    best = BestState(None)
    best.keep(tiny_llama(), 0.5, 1)
    best.save(tmp_path, 0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="no whole state"):
        BestState(None).load(tmp_path, 0)


def test_the_multiplier_rises_above_the_target_and_falls_below_it() -> None:
    dual = Dual(0.1)
    dual.step()
    assert dual.multiplier == 1.0  # nothing was seen
    for value in (0.15, 0.25):  # a mean of .2: twice the target
        dual.see(value)
    dual.step()
    assert dual.multiplier == pytest.approx(torch.e**0.1)
    dual.see(0.05)
    dual.step()
    assert dual.multiplier == pytest.approx(torch.e**0.05)
    for _ in range(100):
        dual.see(0.0)
        dual.step()
    assert dual.multiplier == 1 / 16


def test_the_retain_term_is_weighed_by_the_multiplier(build: Build) -> None:
    """A target far below what there is: the weight rises by a tenth an update, and is logged and resumed."""
    trainer = build(
        retain_kl_target=1e-9, validation_steps=0, learning_rate=1e-2, save_strategy="steps", save_steps=2, max_steps=3
    )
    trainer.train()
    logged = [entry["retain_multiplier"] for entry in trainer.state.log_history if "retain_multiplier" in entry]
    # The first update begins at π_N, where the KL is 0
    assert logged[0] == 1.0 and logged[2] == pytest.approx(logged[1] * torch.e**0.1)
    kls = [entry["retain_kl"] for entry in trainer.state.log_history if "retain_kl" in entry]
    assert kls[1] > 1e-6
    again = build(
        retain_kl_target=1e-9, validation_steps=0, learning_rate=1e-2, save_strategy="steps", save_steps=2, max_steps=3
    )
    again.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-2"))
    resumed = [entry["retain_multiplier"] for entry in again.state.log_history if "retain_multiplier" in entry]
    assert resumed[-1] == pytest.approx(logged[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retain_kl_target": 0.0}, "retain_kl_target is 0.0"),
        ({"retain_kl_target": -1.0}, "retain_kl_target is -1.0"),
        ({"retain_kl_target": 0.1, "retain_loss": "nll"}, "needs the retain KL"),
        ({"early_stopping_patience": 0}, "early_stopping_patience is 0"),
        ({"retain_coef": float("inf")}, "retain_coef is inf"),
        ({"retain_batch_size": 0}, "retain_batch_size is 0: give at least 1"),
        ({"uninformed_temperature": 0.0}, "uninformed_temperature is 0.0: give a number above 0"),
        ({"uninformed_temperature": float("nan")}, "uninformed_temperature is nan: give a number above 0"),
    ],
)
def test_what_cannot_be_is_refused(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**({"validation_steps": 0} | options))
