"""SCRUB: which update is of which kind, what each minimises, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_dataset
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.methods import scrub as scrub_module
from dareu.methods.scrub import ScrubConfig, ScrubTrainer, scrub
from dareu.metrics import answer_nll
from dareu.models.forward import completion_logits
from dareu.trainers.retain import stream_rows
from dareu.weights import fingerprint

Build = Callable[..., ScrubTrainer]


@pytest.fixture
def build(
    tokenizer: PreTrainedTokenizerFast,
    unlearn_config: Callable[..., Any],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Build:
    def make(
        model: Any,
        *,
        retain: Dataset | None = retain_rows,
        mask: Any = None,
        lora: Any = None,
        loss: Any = scrub,
        **options: Any,
    ) -> ScrubTrainer:
        return ScrubTrainer(
            model,
            loss,
            unlearn_config(ScrubConfig, **({"retain_batch_size": 4} | options)),
            forget_rows,
            retain_dataset=retain,
            mask=mask,
            processing_class=tokenizer,
            peft_config=lora,
        )

    return make


def kinds(trainer: ScrubTrainer) -> str:
    """`f` for an update on forget rows, `r` for one on retained rows, `?` for both or neither."""
    lines = trainer.state.log_history[:-1]
    found = [("forget_kl" in line, "retain_kl" in line and "retain_nll" in line) for line in lines]
    return "".join({(True, False): "f", (False, True): "r"}.get(pair, "?") for pair in found)


@pytest.mark.parametrize(("share", "expected"), [(1.0, "rfrfrf"), (0.67, "rfrfrr"), (0.5, "rfrrrr"), (0.1, "rrrrrr")])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_updates_alternate_and_are_wholly_of_one_kind(
    share: float, expected: str, accumulation: int, build: Build, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulation, "learning_rate": 1e-3}
    trainer = build(tiny_llama(), ascent_share=share, max_steps=6, **options)
    trainer.train()
    assert trainer.state.global_step == 6 and kinds(trainer) == expected


def test_each_kind_minimises_its_equation(
    build: Build,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> None:
    model, original = tiny_llama(), tiny_llama()
    nll = float(answer_nll(model, tokenizer, list(retain_rows["prompt"]), list(retain_rows["completion"])).mean.mean())
    trainer = build(model, alpha=0.5, gamma=2.0, max_steps=2, ascent_share=1.0, forget_coef=3.0)
    kl: list[float] = []
    original_step = trainer._ascends

    def look() -> bool:
        """The divergence on the forget rows before an update, by another way."""
        batch = CompletionCollator(tokenizer)(encode_dataset(forget_rows, tokenizer))
        with torch.no_grad():
            teacher, student = completion_logits(original, batch), completion_logits(model, batch)
            logps = [said.logits.log_softmax(-1) for said in (student, teacher)]
            each = torch.nn.functional.kl_div(*logps, log_target=True, reduction="none").sum(-1)
            found = student.row_sum(each) / student.lengths()
        kl.append(found.mean().item())
        return original_step()

    trainer._ascends = look  # type: ignore[method-assign]
    trainer.train()
    first, second, _ = trainer.state.log_history
    assert abs(first["retain_kl"]) < 1e-6 and first["retain_nll"] == pytest.approx(nll, rel=1e-5)
    assert first["loss"] == pytest.approx(2 * nll, rel=1e-5)
    assert kl[0] == pytest.approx(0, abs=1e-6) and kl[1] > 1e-3
    assert second["forget_kl"] == pytest.approx(kl[1], rel=1e-4)
    assert second["loss"] == pytest.approx(-3 * kl[1], rel=1e-4)


def test_every_ascent_sees_a_whole_batch(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches of two in two passes over three rows: with the loader's, every other one would hold one row."""
    seen: list[list[int]] = []

    def note(*arguments: int) -> list[int]:
        seen.append(stream_rows(*arguments))
        return seen[-1]

    monkeypatch.setattr(scrub_module, "stream_rows", note)
    trainer = build(tiny_llama(), per_device_train_batch_size=2, max_steps=12, ascent_share=1.0)
    trainer._records.append(trainer._records[0])
    trainer.train()
    assert [len(rows) for rows in seen] == [2] * 6
    assert {row for rows in seen for row in rows} == {0, 1, 2}


def test_accumulation_changes_nothing(build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    norms = []
    for accumulation, size in ((1, 2), (2, 1)):
        trainer = build(
            tiny_llama(),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            retain_batch_size=4 // accumulation,
            ascent_share=1.0,
            learning_rate=1e-3,
        )
        trainer.train()
        norms.append([line["grad_norm"] for line in trainer.state.log_history[:2]])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("masked", [True, False])
def test_resuming_keeps_the_turns_and_ends_with_the_same_bits(
    masked: bool, build: Build, tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    options = {"max_steps": 6, "ascent_share": 1.0, "save_strategy": "steps", "save_steps": 3}
    trainers = []
    for resume in (None, str(tmp_path / "run" / "checkpoint-3")):
        model = tiny_llama()
        mask = WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model)) if masked else None
        trainers.append(build(model, mask=mask, **options))
        trainers[-1].train(resume_from_checkpoint=resume)
        assert kinds(trainers[-1]) == "rfrfrf"
        if mask is not None:
            assert count_moved_outside(tiny_llama(), model, mask) == 0
    whole, again = (trainer.model.parameters() for trainer in trainers)
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": -1.0}, "alpha is -1.0: give a number ≥ 0"),
        ({"gamma": 0.0}, "gamma is 0.0: give a number > 0"),
        ({"ascent_share": 0.0}, r"ascent_share is 0.0: give a number in \(0, 1\]"),
        ({"ascent_share": 1.5}, r"ascent_share is 1.5: give a number in \(0, 1\]"),
        ({"retain_loss": "nll"}, "retain_loss and retain_coef are of the retain term that other methods share"),
        ({"loss_kwargs": {"beta": 1.0}}, "The loss has no option beta"),
        ({"loss": lambda logps: logps.mean()}, "The loss asks for logps: there are kl."),
        ({"loss": lambda kl: kl}, r"The loss gives a tensor of shape \(2,\)"),
        ({"retain": None}, "SCRUB holds retained rows in place: give a retain_dataset"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    options: dict[str, Any], match: str, build: Build, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    with pytest.raises(ValueError, match=match) as error:
        build(tiny_llama(), **options)
    assert "\n" not in str(error.value)
