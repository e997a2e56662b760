"""The arithmetic of a memory plan against what a small model really takes."""

import runpy
import sys
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import GPTNeoXConfig, LlamaConfig, PreTrainedConfig, Qwen3Config

from dareu.masks import MaskedAdamW, random_mask
from dareu.methods.npo import npo
from dareu.models.forward import completion_mean, completion_predictions, completion_terms
from dareu.runs.memory_plan import (
    activation_bytes,
    empty_model,
    kv_cache_bytes,
    memory_plan,
    optimizer_bytes,
    parameter_bytes,
)
from dareu.trainers.original import _OriginalEntries, original_policy

ROOT = Path(__file__).resolve().parents[3]

SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SHAPE, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
    "gpt_neox": lambda: GPTNeoXConfig(**SHAPE),
}
ROWS, PROMPT, COMPLETION = 3, 12, 8


def build(name: str, device: str = "cpu", *, dtype: torch.dtype = torch.float32, lora: bool = False) -> Any:
    from transformers import AutoModelForCausalLM

    if device == "meta":
        model: Any = empty_model(CONFIGS[name](), dtype)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=dtype).train()
    if lora:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    return model


def batch(vocab_size: int = 400) -> dict[str, Tensor]:
    """Rows of PROMPT + COMPLETION tokens with one padded place, so that the mask is needed."""
    ids = torch.randint(3, vocab_size, (ROWS, PROMPT + COMPLETION), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def size(tensors: Iterable[Any]) -> int:
    """Bytes of the storages of tensors, shared ones once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if isinstance(t, Tensor)}
    return sum(storages.values())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "kind",
    [
        *("dense", "bf16", "lora", "lora bf16", "masked .2", "masked .2 bf16", "masked .95", "masked .95 bf16"),
        *("mixed", "mixed bf16"),
    ],
)
def test_weights_gradients_and_state_are_those_of_one_real_step(name: str, kind: str) -> None:
    dtype, lora = torch.bfloat16 if "bf16" in kind else torch.float32, "lora" in kind
    model, empty = build(name, dtype=dtype, lora=lora), build(name, "meta", dtype=dtype, lora=lora)
    mask = None
    if "masked" in kind:
        mask = random_mask(model, float(kind.split()[1]), seed=0)
    elif "mixed" in kind:  # sparse, dense, and frozen tensors
        shares = {"embed": 0.95, "mlp": 0.6, "norm": 0.0}
        generator = torch.Generator().manual_seed(0)
        mask = {
            key: next((m for part, m in shares.items() if part in key), 0.1)
            > torch.rand(parameter.shape, generator=generator)
            for key, parameter in model.named_parameters()
        }
    trained = [(key, parameter) for key, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained) if mask is None else MaskedAdamW(trained, mask)
    model(**batch()).loss.backward()
    optimizer.step()

    plan = memory_plan(
        empty, rows=ROWS, prompt_tokens=PROMPT, completion_tokens=COMPLETION, selected=mask, keeps_original=False
    )
    assert plan.weights == size(model.parameters())
    assert plan.gradients == size(parameter.grad for parameter in model.parameters())
    state = size(tensor for entry in optimizer.state.values() for tensor in entry.values())
    if isinstance(optimizer, MaskedAdamW):
        assert sum(optimizer.memory().values()) > state
        state = sum(optimizer.memory().values())
    assert plan.optimizer == optimizer_bytes(model, mask) == state
    if mask is not None and "masked" in kind:  # the number says the same of tensors that are all sparse or all dense
        number = sum(int(mask[key].sum()) for key, _ in trained)
        assert optimizer_bytes(model, number) == state


def test_the_original_is_what_is_kept_of_the_original_model() -> None:
    model = build("llama", dtype=torch.bfloat16)
    mask = random_mask(model, 0.3, seed=0)
    shape = {"rows": 1, "prompt_tokens": 2, "completion_tokens": 2}
    kept = original_policy(model, mask, fresh_adapter=False)
    assert isinstance(kept, _OriginalEntries)
    selected = sum(int(tensor.sum()) for tensor in mask.values())
    empty = build("llama", "meta", dtype=torch.bfloat16)
    for given in (selected, mask):
        assert memory_plan(empty, **shape, selected=given).original == size(
            [*kept.index.values(), *kept.original.values()]
        )
    with original_policy(model, fresh_adapter=False)() as copied:
        assert memory_plan(empty, **shape).original == size(copied.parameters())
    assert memory_plan(build("llama", "meta", lora=True), **shape).original == 0
    with pytest.raises(ValueError, match="exclude each other"):
        memory_plan(build("llama", "meta", lora=True), **shape, selected=1)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_kv_cache_is_that_of_a_generation(name: str) -> None:
    model = build(name).eval()
    inputs = {"input_ids": torch.full((ROWS, PROMPT), 5), "attention_mask": torch.ones(ROWS, PROMPT, dtype=torch.int64)}
    made = model.generate(
        **inputs,
        max_new_tokens=COMPLETION,
        min_new_tokens=COMPLETION,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
    )
    cached = [tensor for layer in made.past_key_values.layers for tensor in (layer.keys, layer.values)]
    # The last token of a completion is never read again.
    tokens = PROMPT + COMPLETION - 1
    assert kv_cache_bytes(CONFIGS[name](), ROWS, tokens, torch.float32) == size(cached)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(("dtype", "autocast"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)])
def test_the_dry_run_counts_what_autograd_really_keeps(
    name: str, lora: bool, dtype: torch.dtype, autocast: bool
) -> None:
    model = build(name, dtype=dtype, lora=lora)
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: list[Tensor] = []
    inputs = {key: value for key, value in batch().items() if key != "labels"}
    positions = torch.arange(PROMPT + COMPLETION).expand(ROWS, -1).contiguous()
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),  # type: ignore[func-returns-value]
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        output = model(**inputs, position_ids=positions, use_cache=False, logits_to_keep=1)
    real = size(tensor for tensor in kept if tensor.untyped_storage().data_ptr() not in own)
    assert output.logits.requires_grad
    empty = build(name, "meta", dtype=dtype, lora=lora)
    assert activation_bytes(empty, ROWS, PROMPT + COMPLETION, autocast=autocast) == real


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are made inside of it and still live, and their peak.

    Args:
        there: Tensors that were there before.
    """

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.live += storage.nbytes()
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        return made

    def _forget(self, key: int, number: int) -> None:
        self._seen.discard(key)
        self.live -= number


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("loss", ["kl", "nll", "none"])
def test_an_update_stays_within_the_plan_and_near_it(lora: bool, loss: Any) -> None:
    """A wide vocabulary, as of real models, and a loss-based method with its retain term as the trainers compute it."""
    config = LlamaConfig(**SHAPE | {"vocab_size": 6000}, num_key_value_heads=2)

    def adapted(model: Any) -> Any:
        return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))

    with torch.random.fork_rng(devices=[]):
        from transformers import LlamaForCausalLM

        torch.manual_seed(0)
        model = LlamaForCausalLM(config).train()
        model = adapted(model) if lora else model
        with torch.device("meta"):
            empty = adapted(empty_model(config)) if lora else empty_model(config)
    forget, retain = batch(6000), batch(6000)
    kept = original_policy(model, fresh_adapter=lora)
    with kept() as original:
        there = [*original.parameters(), *original.buffers(), *model.parameters(), *model.buffers()]

    def micro_batch() -> None:
        if loss == "kl":
            with kept() as original:
                teacher = completion_predictions(original, retain)
            completion_mean(model, retain, "kl", teacher=teacher).backward()
            del teacher
        elif loss == "nll":
            (-completion_mean(model, retain, "logps")).backward()
        policy = completion_terms(model, forget)
        npo(policy.row_sum(policy.logps()), torch.zeros(ROWS)).backward()

    with LiveBytes([*there, *forget.values(), *retain.values()]) as memory:
        for _ in range(2):  # accumulated: the second finds the gradients of the first
            micro_batch()

    plan = memory_plan(
        empty,
        rows=ROWS,
        prompt_tokens=PROMPT,
        completion_tokens=COMPLETION,
        retain_rows=ROWS,
        retain_loss=loss,
    )
    planned = plan.total - plan.weights - plan.optimizer - plan.original
    assert 0.99 * memory.peak <= planned <= 1.2 * memory.peak, (memory.peak, plan)


def test_a_rollout_and_an_update_do_not_add_up() -> None:
    empty = build("llama", "meta")
    shape = {"rows": 2, "prompt_tokens": 4, "completion_tokens": 4}
    small, large = (memory_plan(empty, **shape, rollout_rows=rows) for rows in (1, 10_000))
    always = [small.weights, small.optimizer, small.original]
    assert small.total == sum([*always, small.gradients, small.activations, small.logits])
    assert large.total == large.weights + large.optimizer + large.original + large.rollouts
    judged = memory_plan(empty, **shape, rollout_rows=1, judges=[build("qwen3", "meta")])
    assert judged.total - small.total == parameter_bytes([build("qwen3", "meta")])


def test_a_policy_that_samples_has_our_tiles_on_a_cpu() -> None:
    empty = build("llama", "meta")
    shape = {"rows": 2, "prompt_tokens": 4, "completion_tokens": 4}
    on_cpu, on_gpu = (memory_plan(empty, **shape, rollout_rows=1, on_gpu=gpu) for gpu in (False, True))
    assert on_cpu.logits == memory_plan(empty, **shape).logits < on_gpu.logits


def test_shards_hold_their_part_and_gather_two_layers() -> None:
    empty: nn.Module = build("llama", "meta")
    plan = memory_plan(empty, rows=2, prompt_tokens=4, completion_tokens=4)
    half = plan.sharded(2, empty)
    layer = parameter_bytes([empty.get_submodule("model.layers.0")])
    assert (half.weights, half.optimizer) == (-(-plan.weights // 2), -(-plan.optimizer // 2))
    assert half.gathered == plan.weights - 3 * layer + 2 * layer
    assert (half.activations, half.logits, half.judges) == (plan.activations, plan.logits, plan.judges)
    assert plan.sharded(1, empty) == plan


def test_the_tables_of_the_page_are_what_the_script_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "benchmarks" / "memory_plans.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out.strip()
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    shown = page.split("<!-- plans -->")[1].split("<!-- end of plans -->")[0].strip()
    assert shown == printed, "print them again with python benchmarks/memory_plans.py, and put them into docs/scale.md"
    # Published sizes.
    for name, count in {
        "meta-llama/Llama-2-7b-chat-hf": "6,738,415,616",
        "meta-llama/Llama-3.2-1B-Instruct": "1,235,814,400",
        "HuggingFaceH4/zephyr-7b-beta": "7,241,732,096",
    }.items():
        assert f"| {name} | {count} |" in printed
