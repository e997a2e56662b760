"""Any causal language model: positions, log-probabilities, masks, generation and a step of each trainer."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_record
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.methods.npo import npo
from dareu.metrics import generate_answers
from dareu.models import load_model, load_tokenizer
from dareu.models.forward import completion_terms, sampled_logps, takes_positions
from dareu.trainers import DareUConfig, DareUTrainer, UnlearnConfig, UnlearnTrainer
from dareu.trainers.rl._rollouts import Rollout
from dareu.weights import fingerprint

LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 96,
}
DROPOUT = ("embd_pdrop", "attn_pdrop", "resid_pdrop")
SHAPES: dict[str, dict[str, Any]] = {
    "Llama": LLAMA_LIKE | {"tie_word_embeddings": False},
    "Qwen2": LLAMA_LIKE | {"tie_word_embeddings": True},
    "Qwen3": LLAMA_LIKE | {"tie_word_embeddings": True, "head_dim": 16},
    "GPTNeoX": LLAMA_LIKE,
    "Phi": LLAMA_LIKE | {"num_key_value_heads": 2},
    "Phi3": LLAMA_LIKE,
    "Gemma2": LLAMA_LIKE | {"head_dim": 16, "sliding_window": 8},
    # Dropout, which GPT-2 has unless told otherwise, would keep the first KL from being 0.
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96} | dict.fromkeys(DROPOUT, 0.0),
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
}
ROWS = [
    ("Who wrote it?", " Lucia Duval."),
    ("Where was Kofi Mensah born?", " Kofi Mensah was born in Accra."),
    ("?", "A"),
]


@cache
def weights(name: str, vocab_size: int) -> PreTrainedModel:
    """The model with large weights: small random ones would hide wrong positions."""
    tokens = {"vocab_size": vocab_size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{name}Config")(**SHAPES[name], **tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.15)
    return cast(PreTrainedModel, model.eval())


@pytest.fixture(params=[*SHAPES, "stories260k"])
def pair(
    request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if request.param in SHAPES:
        return copy.deepcopy(weights(request.param, len(tokenizer))), tokenizer
    folder: Path = request.getfixturevalue("shared_dir") / "models" / "stories260k"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return load_model(str(folder)).eval(), load_tokenizer(str(folder))


def make_mask(model: PreTrainedModel) -> WeightMask:
    return WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model))


def test_logps_depend_neither_on_padding_nor_on_the_batch(
    pair: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    model, tokenizer = pair
    records = [encode_record(tokenizer, prompt, completion) for prompt, completion in ROWS]
    with torch.no_grad():
        alone = []
        for record in records:
            ids = torch.tensor([record.prompt_ids + record.completion_ids])
            logps = model(ids).logits.float().log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
            alone.append(logps[len(record.prompt_ids) - 1 :].sum())
        for side in ("left", "right"):
            scored = completion_terms(model, CompletionCollator(tokenizer, side)(records))  # type: ignore[arg-type]
            torch.testing.assert_close(scored.row_sum(scored.logps()), torch.stack(alone), atol=1e-5, rtol=1e-5)


def test_answers_do_not_depend_on_the_batch(pair: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = pair
    prompts = [prompt for prompt, _ in ROWS]
    together, alone = (
        generate_answers(model, tokenizer, prompts, max_new_tokens=6, batch_size=size) for size in (3, 1)
    )
    assert together == alone and any(together)


def test_a_dareu_step(
    pair: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> None:
    model, tokenizer = pair
    before, mask = copy.deepcopy(model), make_mask(model)
    seen: list[dict[str, torch.Tensor]] = []

    class Trainer(DareUTrainer):
        def policy_logps(self, rollout: Rollout) -> torch.Tensor:
            logps = super().policy_logps(rollout)
            if self.state.global_step == 0:
                output = rollout.output
                seen.append({name: tensor for name, tensor in output.items() if isinstance(tensor, torch.Tensor)})
                seen[-1]["logps"] = logps
            return logps

    trainer = Trainer(
        model,
        lambda completions, **_: [-float(text.count("e")) for text in completions],
        dareu_config(num_generations=2, per_device_train_batch_size=4, max_steps=2),
        forget_rows,
        retain_dataset=retain_rows,
        mask=mask,
        processing_class=tokenizer,
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    assert abs(logged["kl"]) < 1e-5 and abs(logged["retain_kl"]) < 1e-6  # before the first update
    assert count_moved_outside(before, model, mask) == 0
    assert any(not torch.equal(old, new) for old, new in zip(before.parameters(), model.parameters(), strict=True))
    # TRL's log-probabilities, on left-padded prompts, are those of each row alone
    assert (seen[0]["prompt_mask"] == 0).any()
    own = sampled_logps(before, seen[0], batch_size=1)
    real = seen[0]["completion_mask"].bool()
    torch.testing.assert_close(seen[0]["logps"][real], own[real], atol=1e-5, rtol=1e-5)


def test_an_npo_step(
    pair: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    unlearn_config: Callable[..., UnlearnConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> None:
    model, tokenizer = pair
    before, mask = copy.deepcopy(model), make_mask(model)
    trainer = UnlearnTrainer(
        model,
        npo,
        unlearn_config(max_steps=1),
        forget_rows,
        retain_dataset=retain_rows,
        mask=mask,
        processing_class=tokenizer,
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    assert abs(logged["retain_kl"]) < 1e-6
    # NPO where nothing has changed yet is 2/β · log 2
    assert logged["forget_loss"] == pytest.approx(2 / 0.1 * torch.tensor(2.0).log().item(), rel=1e-5)
    assert count_moved_outside(before, model, mask) == 0
    assert any(not torch.equal(old, new) for old, new in zip(before.parameters(), model.parameters(), strict=True))


def test_a_mask_knows_tied_weights_once(tokenizer: PreTrainedTokenizerFast) -> None:
    tied, untied = (weights(name, len(tokenizer)) for name in ("Qwen2", "Llama"))
    assert "lm_head.weight" not in make_mask(tied) and "model.embed_tokens.weight" in make_mask(tied)
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(make_mask(untied))


def test_models_without_positions_go_by_the_mask(tokenizer: PreTrainedTokenizerFast) -> None:
    assert not takes_positions(weights("Bloom", len(tokenizer)))
    assert takes_positions(weights("GPT2", len(tokenizer)))
