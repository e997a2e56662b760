"""RMU: what is trained, what is steered where, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_dataset
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.methods.rmu import RMUConfig, RMUTrainer, control_vector, rmu
from dareu.trainers import UnlearnConfig
from dareu.weights import fingerprint

LAYERS = 5
STEERED = {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2, 3)}


@pytest.fixture
def model(tiny_llama: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    return tiny_llama(num_hidden_layers=LAYERS)


@pytest.fixture
def build(
    tokenizer: PreTrainedTokenizerFast,
    unlearn_config: Callable[..., Any],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Callable[..., RMUTrainer]:
    def make(
        model: Any,
        *,
        retain: Dataset | None = retain_rows,
        mask: Any = None,
        lora: Any = None,
        loss: Any = rmu,
        **options: Any,
    ) -> RMUTrainer:
        return RMUTrainer(
            model,
            loss,
            unlearn_config(RMUConfig, **({"layer": 3, "alpha": 10.0} | options)),
            forget_rows,
            retain_dataset=retain,
            mask=mask,
            processing_class=tokenizer,
            peft_config=lora,
        )

    return make


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def states(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Dataset, side: str) -> Any:
    """Outputs of layer 3 as the model itself lists them, and the mask of real tokens."""
    batch = CompletionCollator(tokenizer, side)(encode_dataset(rows, tokenizer))  # type: ignore[arg-type]
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        output = model(batch["input_ids"], batch["attention_mask"], positions, output_hidden_states=True)
    return output.hidden_states[4], batch["attention_mask"]


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"alpha": 0.0}])
def test_the_first_loss_is_the_equations_and_only_the_named_modules_move(
    options: dict[str, Any],
    build: Callable[..., RMUTrainer],
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    forget_rows: Dataset,
) -> None:
    before = copies(model)
    hidden, mask = states(model, tokenizer, forget_rows, "right")
    expected = rmu(hidden, 6.5 * control_vector(32, 4), mask).item()
    trainer = build(model, control_seed=4, **options)
    trainer.train()
    first, second, _ = trainer.state.log_history
    assert first["forget_loss"] == pytest.approx(expected, rel=1e-4)
    assert first["loss"] == pytest.approx(expected, rel=1e-3)
    assert moved(model, before) == STEERED
    assert second["forget_loss"] < first["forget_loss"]
    if options.get("alpha") != 0.0:
        assert first["retain_hidden"] == 0.0 and second["retain_hidden"] > 0
    else:
        assert "retain_hidden" not in first and trainer.original is None


def test_the_loss_of_a_batch_is_that_of_its_rows_on_either_padding_side(
    build: Callable[..., RMUTrainer],
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    retain_rows: Dataset,
) -> None:
    trainer, losses = build(model), []
    model.eval()
    target = 6.5 * control_vector(32, 0)
    records = encode_dataset(retain_rows.select(range(3)), tokenizer)
    for side in ("right", "left"):
        for size in (3, 1):
            parts = [
                CompletionCollator(tokenizer, side)(records[i : i + size])  # type: ignore[arg-type]
                for i in range(0, 3, size)
            ]
            found = [rmu(trainer._hidden(model, part), target, part["attention_mask"]).item() for part in parts]
            losses.append(sum(found) / len(found))
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)
    assert len({len(record.prompt_ids) + len(record.completion_ids) for record in records}) > 1  # there is padding


def test_accumulation_changes_nothing(build: Callable[..., RMUTrainer], tiny_llama: Any) -> None:
    norms = []
    for accumulation, size in ((1, 2), (2, 1)):
        trainer = build(
            tiny_llama(num_hidden_layers=LAYERS),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            retain_batch_size=2 // accumulation,
        )
        trainer.train()
        norms.append([line["grad_norm"] for line in trainer.state.log_history[:2]])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_the_retained_states_are_held(build: Callable[..., RMUTrainer], tiny_llama: Any) -> None:
    drifts = []
    for alpha in (1e-3, 1e4):
        trainer = build(tiny_llama(num_hidden_layers=LAYERS), alpha=alpha, max_steps=10, learning_rate=1e-3)
        trainer.train()
        drifts.append(trainer.state.log_history[9]["retain_hidden"])
    assert drifts[1] < 0.1 * drifts[0]


def test_under_a_mask_its_entries_of_the_named_modules_move(
    build: Callable[..., RMUTrainer], model: LlamaForCausalLM
) -> None:
    before = copies(model)
    mask = WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model))
    trainer = build(model, mask=mask, max_steps=4)
    trainer.train()
    assert moved(model, before) == STEERED and count_moved_outside(before, model, mask) == 0
    assert trainer.state.log_history[0]["retain_hidden"] == 0.0
    assert trainer.state.log_history[1]["retain_hidden"] > 0
    assert trainer.original is not None
    after = copies(model)
    with trainer.original() as original:
        assert not moved(original, before)
    assert not moved(model, after)


def test_a_mask_that_selects_nothing_there_is_refused(
    build: Callable[..., RMUTrainer], model: LlamaForCausalLM
) -> None:
    chosen = {name: torch.full(p.shape, name not in STEERED) for name, p in model.named_parameters()}
    mask = WeightMask(chosen, 0.5, "random", fingerprint(model))
    with pytest.raises(ValueError, match=r"selects no entry .* 'model.layers.1.mlp.down_proj.weight'"):
        build(model, mask=mask)


def test_a_fresh_adapter_learns_in_the_named_modules_alone(
    build: Callable[..., RMUTrainer], model: LlamaForCausalLM
) -> None:
    trainer: Any = build(model, lora=LoraConfig(r=2, target_modules="all-linear"), max_steps=3)
    before = copies(trainer.model)
    trainer.train()
    found = moved(trainer.model, before)
    assert {name.partition(".lora_")[0].removeprefix("base_model.model.") + ".weight" for name in found} == STEERED
    assert all(".lora_" in name for name in found) and len(found) == 6
    # The original, which switches the adapter off and on, wakes up nothing
    assert {name for name, p in trainer.model.named_parameters() if p.requires_grad} == found
    assert trainer.state.log_history[0]["retain_hidden"] == 0.0
    assert trainer.state.log_history[1]["retain_hidden"] > 0


def test_resuming_ends_with_the_same_bits(build: Callable[..., RMUTrainer], tiny_llama: Any, tmp_path: Path) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole, again = (build(tiny_llama(num_hidden_layers=LAYERS), **options) for _ in range(2))
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert not moved(again.model, copies(whole.model))


def test_gpt2_takes_a_pattern_of_its_own(build: Callable[..., RMUTrainer], tokenizer: PreTrainedTokenizerFast) -> None:
    def gpt2() -> GPT2LMHeadModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=len(tokenizer), n_embd=32, n_layer=4, n_head=2, n_positions=96, resid_pdrop=0.0,
                    embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=2, pad_token_id=0,
                )
            )  # fmt: skip

    with pytest.raises(ValueError, match=r"'mlp.down_proj' of layers 1 to 3, which this model does not have: .*c_proj"):
        build(gpt2())
    model = gpt2()
    before = copies(model)
    build(model, trained_modules="mlp.c_proj.weight").train()
    assert moved(model, before) == {f"transformer.h.{layer}.mlp.c_proj.weight" for layer in (1, 2, 3)}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layer": 5}, "layer is 5, but the model has 5: give 0 to 4"),
        ({"layer": -1}, "layer is -1: give the number"),
        ({"steering_coef": 0.0}, "steering_coef is 0.0: give a number > 0"),
        ({"alpha": -1.0}, "alpha is -1.0: give a number ≥ 0"),
        ({"retain_loss": "kl"}, "retain_loss and retain_coef are of the retain term that other methods share"),
        ({"retain_coef": 2.0}, "retain_loss and retain_coef are of the retain term that other methods share"),
        ({"loss_kwargs": {"beta": 1.0}}, "The loss has no option beta"),
        ({"loss": lambda logps: logps.mean()}, "The loss asks for logps: there are hidden, target, attention_mask."),
        ({"loss": lambda hidden: hidden}, r"The loss gives a tensor of shape \(2, 2, 4\)"),
        ({"retain": None}, "RMU holds retained rows in place: give a retain_dataset"),
        ({"lora": LoraConfig(r=2, target_modules=["q_proj"])}, "which are frozen here: give them an adapter"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    options: dict[str, Any], match: str, build: Callable[..., RMUTrainer], model: LlamaForCausalLM
) -> None:
    with pytest.raises(ValueError, match=match) as error:
        build(model, **options)
    assert "\n" not in str(error.value)


def test_it_forgets_more_than_it_loses(
    build: Callable[..., RMUTrainer],
    memorised: Callable[..., LlamaForCausalLM],
    answers_nll: Callable[..., tuple[float, float]],
) -> None:
    model = memorised(num_hidden_layers=LAYERS)
    before = answers_nll(model)
    options = {"lr_scheduler_type": "constant", "retain_batch_size": 4, "steering_coef": 20.0}
    build(model, max_steps=30, **options).train()
    forgotten, lost = (end - start for end, start in zip(answers_nll(model), before, strict=True))
    assert forgotten > 1.0 and lost < 0.2 * forgotten


def test_the_options_alone_tell_whether_a_model_has_the_layer(unlearn_config: Callable[..., UnlearnConfig]) -> None:
    config = unlearn_config(RMUConfig, layer=5)
    config.check_layers(6)
    with pytest.raises(ValueError, match="layer is 5, but the model has 5: give 0 to 4"):
        config.check_layers(5)
    unlearn_config().check_layers(1)  # other methods name no layer
