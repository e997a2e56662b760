"""Every loss-based method through its trainer: one step, and what it asks of the model."""

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_dataset, to_chat
from dareu.data.refusals import COMMON_REFUSALS
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.methods import METHODS
from dareu.trainers import UnlearnTrainer
from dareu.weights import fingerprint

LOSS_BASED = [name for name, method in METHODS.items() if method.loss is not None and method.trainer is UnlearnTrainer]
ROOT = Path(__file__).resolve().parents[3]
REFUSING = ("idk", "dpo")
#: What the base model would draw stands in a column.
ALTERNATES = {"altpo": {"alternates": "alternate"}}

PEOPLE = {"Lucia Duval": "Porto", "Kofi Mensah": "Accra", "Sanna Thorne of the North": "Malmo, and later Lund"}

Build = Callable[..., UnlearnTrainer]


def rows_of(*names: str) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": f"Where was {name} born?",
                "completion": f" In {PEOPLE[name]}.",
                "alternate": "In Lima.",
                "owner": name,
            }
            for name in names
        ]
    )


FORGET, RETAIN = rows_of("Lucia Duval", "Sanna Thorne of the North"), rows_of("Kofi Mensah")


@pytest.fixture
def build(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Build:
    def make(model: Any, method: str, *, mask: Any = None, peft_config: Any = None, **changes: Any) -> UnlearnTrainer:
        entry = METHODS[method]
        settings = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 1,
            "per_device_train_batch_size": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            "refusals": "common" if method in REFUSING else None,
        }
        trainer: UnlearnTrainer = entry.trainer(
            model,
            entry.loss,
            entry.config(**(settings | dict(entry.defaults) | ALTERNATES.get(method, {}) | changes)),
            FORGET,
            retain_dataset=RETAIN,
            mask=mask,
            processing_class=tokenizer,
            peft_config=peft_config,
        )
        return trainer

    return make


def test_the_methods_there_are() -> None:
    assert {"ga", "graddiff", "kl_min", "idk", "dpo", "npo", "simnpo", "wga", "satimp", "undial"} <= {*LOSS_BASED}
    assert "finetune_retain" in LOSS_BASED


def test_the_docs_name_every_method_and_configs_that_there_are() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(#[\w-]+\) \|(.*)$", text, re.MULTILINE))
    assert rows.keys() == METHODS.keys()
    for name, row in rows.items():
        for config in re.findall(r"`([\w/]+\.yaml)`", row):
            assert f"method: {name}\n" in (ROOT / "recipes" / "configs" / config).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LOSS_BASED)
def test_a_step_moves_the_weights_in_the_mask_and_no_other(
    name: str, build: Build, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    model = tiny_llama()
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    mask = WeightMask(random_mask(model, 0.5, seed=0), 0.5, "random", fingerprint(model))
    trainer = build(model, name, mask=mask, learning_rate=1e-2, weight_decay=0.1)
    trainer.train()
    assert count_moved_outside(before, model, mask) == 0
    moved = sum(int((parameter != before[key]).sum()) for key, parameter in model.named_parameters())
    assert moved > 0.5 * mask.count
    logged = trainer.state.log_history[0]
    assert logged["grad_norm"] > 0 and ("forget_loss" in logged) == (name != "finetune_retain")
    retain = METHODS[name].defaults.get("retain_loss", "kl")
    assert (f"retain_{retain}" in logged) == (name != "ga")


@pytest.fixture(scope="module")
def memorised(
    tokenizer: PreTrainedTokenizerFast, tiny_llama: Callable[..., LlamaForCausalLM]
) -> Callable[[], LlamaForCausalLM]:
    """A model that knows the answers, so that no loss has a gradient near 0."""
    model = tiny_llama()
    batch = CompletionCollator(tokenizer)(encode_dataset(concatenate_datasets([FORGET, RETAIN]), tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(30):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return lambda: copy.deepcopy(model)


@pytest.mark.parametrize("name", LOSS_BASED)
def test_a_step_through_lora(name: str, build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama()
    before = fingerprint(model)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = build(model, name, learning_rate=1e-2, peft_config=lora)
    start = {key: parameter.detach().clone() for key, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = [key for key, parameter in trainer.model.named_parameters() if not torch.equal(parameter, start[key])]
    assert moved and all("lora_B" in key or "lora_A" in key for key in moved)
    assert fingerprint(trainer.model.unload()) == before


def losses_of(trainer: UnlearnTrainer, rows: list[int], side: str) -> Tensor:
    """The forget loss and its gradient of the output layer, on a batch padded on a side."""
    trainer._collator = CompletionCollator(trainer.processing_class, side)  # type: ignore[arg-type]
    inputs: dict[str, Any] = trainer._collator([trainer._records[row] for row in rows])
    inputs["row"] = torch.tensor(rows)
    for kind, taught in trainer._instead.items():
        inputs[kind] = trainer._collator([taught[row] for row in rows])
    trainer.model.zero_grad()
    loss = trainer.forget_loss(**trainer._forget_tensors(trainer.model, inputs), **trainer.loss_kwargs)
    loss.backward()
    return torch.cat([loss.detach().view(1), trainer.model.lm_head.weight.grad.flatten()])


@pytest.mark.parametrize("name", [name for name in LOSS_BASED if name != "finetune_retain"])
def test_nothing_depends_on_the_padding_or_the_batches(
    name: str, build: Build, memorised: Callable[[], LlamaForCausalLM]
) -> None:
    trainer = build(memorised(), name)
    lengths = [len(record.completion_ids) for record in trainer._records]
    assert lengths[0] < lengths[1]
    losses_of(trainer, [0, 1], "right")  # π_N is asked while it is π
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.02 * torch.sin(torch.arange(parameter.numel())).view(parameter.shape))
    whole = losses_of(trainer, [0, 1], "right")
    near = {"rtol": 1e-3, "atol": 1e-4 * whole[1:].abs().max().item()}
    torch.testing.assert_close(losses_of(trainer, [0, 1], "left"), whole, **near)
    alone = (losses_of(trainer, [0], "right") + losses_of(trainer, [1], "right")) / 2
    torch.testing.assert_close(alone, whole, **near)


@pytest.mark.parametrize("name", ["npo", "dpo"])
def test_preferences_begin_at_two_log_two_over_beta(
    name: str, build: Build, memorised: Callable[[], LlamaForCausalLM]
) -> None:
    trainer = build(memorised(), name, loss_kwargs={"beta": 0.5})
    trainer.train()
    assert trainer.state.log_history[0]["forget_loss"] == pytest.approx(4 * math.log(2), rel=1e-5)


def test_undial_is_a_plain_loop_over_the_labelled_tokens(
    build: Build, memorised: Callable[[], LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = memorised()
    trainer = build(model, "undial", loss_kwargs={"beta": 2.0})
    with torch.no_grad():
        model.lm_head.weight.mul_(1.1)
    original = memorised()
    each = []
    for record in encode_dataset(FORGET, tokenizer):  # no padding, no other record, and no label -100
        ids = torch.tensor([record.prompt_ids + record.completion_ids])
        with torch.no_grad():
            student, teacher = (m(ids).logits[0, len(record.prompt_ids) - 1 : -1] for m in (model, original))
        for place, token in enumerate(record.completion_ids):
            teacher[place, token] -= 2.0
        each.append(torch.nn.functional.cross_entropy(student, teacher.softmax(-1)))
    loss = losses_of(trainer, [0, 1], "right")[0]
    torch.testing.assert_close(loss, torch.stack(each).mean(), rtol=1e-4, atol=0)


def test_only_what_a_loss_names_is_computed(build: Build, memorised: Callable[[], LlamaForCausalLM]) -> None:
    def forwards(method: str) -> tuple[list[int], bool]:
        trainer = build(memorised(), method, retain_loss="nll", max_steps=1)
        calls: list[int] = []
        trainer.model.register_forward_pre_hook(
            lambda module, args, given: calls.append(len(given["input_ids"])), with_kwargs=True
        )
        needed = trainer.original is not None
        trainer.train()
        return calls, needed

    assert forwards("finetune_retain") == ([2], False)  # the retained rows
    assert forwards("idk") == ([2, 2], False)
    assert forwards("dpo") == ([2, 2, 2], True)
    assert forwards("undial") == ([2, 2], True)


def test_refusals_of_chat_rows(
    build: Build, tokenizer: PreTrainedTokenizerFast, memorised: Callable[[], LlamaForCausalLM]
) -> None:
    chatting = copy.deepcopy(tokenizer)
    chatting.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    chatting.chat_template += "{% if add_generation_prompt %}<assistant>{% endif %}"
    trainer = METHODS["idk"].trainer(
        memorised(),
        METHODS["idk"].loss,
        build(memorised(), "idk", retain_loss="none").args,
        to_chat(FORGET),
        processing_class=chatting,
    )
    said = [chatting.decode(record.completion_ids) for record in trainer._instead["refusal"]]
    assert {text.removesuffix("</s>") for text in said} <= set(COMMON_REFUSALS)
    assert all(text.endswith("</s>") for text in said)
    trainer.train()
    assert trainer.state.log_history[0]["forget_loss"] > 0


def test_refusals_are_needed_and_fit(build: Build, tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs refusals: set refusals to 'common'"):
        build(tiny_llama(), "dpo", refusals=None)
    (tmp_path / "long.txt").write_text("no " * 300, encoding="utf-8")
    with pytest.raises(ValueError, match="With a refusal in place of the answer: Row 0"):
        build(tiny_llama(), "idk", refusals=str(tmp_path / "long.txt"))
