"""The memory plans of docs/scale.md: what each config takes of a device, worked out and not measured.

    python benchmarks/memory_plans.py
    python benchmarks/memory_plans.py my/dareu.yaml

Configs are those of `finetune` and `unlearn`; without one, those of the public models. A config of your own is planned
for the model that it names as a folder, or for one of the public models below.
"""

import argparse
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, LlamaConfig, MistralConfig, PreTrainedConfig, Qwen3Config

from dareu.runs.memory_plan import MemoryPlan, empty_model, kv_cache_bytes, memory_plan, parameter_bytes

CONFIGS = Path(__file__).resolve().parent.parent / "recipes" / "configs"
SHOWN = (
    "llama2_7b_chat/target",
    "llama2_7b_chat/dareu",
    "llama2_7b_chat/dareu_24gb",
    "llama2_7b_chat/dareu_paper",
    "llama2_7b_chat/npo",
    "llama32_1b_instruct/target",
    "llama32_1b_instruct/dareu",
    "llama32_1b_instruct/npo",
    "tofu_board/target",
    "tofu_board/npo",
    "qwen3_0.6b/target",
    "qwen3_0.6b/dareu",
    "qwen3_0.6b/npo",
    "zephyr_7b_beta/dareu",
    "zephyr_7b_beta/npo",
)
TOFU_PROMPT, TOFU_COMPLETION = 112, 128
"""Tokens of TOFU's longest question in a chat template, and of its longest answer, rounded up."""

CARDS, FREE, MOST = (24, 80, 141), 0.1, 16
"""Cards in GB (1e9 bytes), the share of them that is left free, and processes beyond which nothing is planned."""


def public_models() -> dict[str, PreTrainedConfig]:
    """The numbers in the `config.json` of the public models, as far as they decide shapes."""
    llama2 = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
    )
    llama32 = LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
    )
    qwen3 = Qwen3Config(
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    mistral = MistralConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        sliding_window=4096,
    )
    return {
        "meta-llama/Llama-2-7b-chat-hf": llama2,
        "meta-llama/Llama-3.2-1B-Instruct": llama32,
        "Qwen/Qwen3-0.6B": qwen3,
        "HuggingFaceH4/zephyr-7b-beta": mistral,
        "mistralai/Mistral-7B-v0.1": mistral,
    }


@cache
def origins() -> dict[str, Any]:
    """Of each config that writes a folder, the folder and the model that what is in it was made from."""
    made: dict[str, Any] = {}
    for path in CONFIGS.rglob("*.yaml"):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        from_model = config.get("model_name_or_path") or (config.get("classifier_kwargs") or {}).get("model")
        made.setdefault(str(config.get("output_dir")), from_model)
    return made


def source(name: str) -> str:
    """The model that a run's output was made from: a hub id, or a folder that is there."""
    found = next((model for folder, model in origins().items() if name.startswith(f"{folder}/")), None)
    return name if found is None else source(found)


def shapes(name: str, dtype: torch.dtype) -> Any:
    """The model of a name in an option, without weights."""
    known = source(name)
    return empty_model(public_models().get(known) or AutoConfig.from_pretrained(known), dtype)


def plan(path: Path) -> tuple[str, Any, MemoryPlan]:
    """How a config trains, its model, and its plan on one device that computes in bfloat16."""
    text = path.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    recipe = re.findall(r"^#\s+dareu (\w+) ", text, re.MULTILINE)[0]
    dtype = getattr(torch, config.get("dtype", "float32"))
    model, how, selected = shapes(config["model_name_or_path"], dtype), "all weights", None
    if config.get("use_peft"):
        how = f"LoRA r {config['lora_r']}"
        with torch.device("meta"):
            model = get_peft_model(
                model, LoraConfig(r=config["lora_r"], target_modules="all-linear", task_type="CAUSAL_LM")
            )
    elif mask := config.get("mask"):
        made = next(p for p in path.parent.glob("*.yaml") if f"output_dir: {mask.rsplit('/', 1)[0]}\n" in p.read_text())
        (density,) = yaml.safe_load(made.read_text(encoding="utf-8"))["density"]
        how, selected = f"mask {density}", round(density * sum(p.numel() for p in model.parameters()))
    how += f", {config.get('dtype', 'float32')}"
    rows = config["per_device_train_batch_size"]
    prompt = config.get("prompt_tokens", TOFU_PROMPT)
    completion = config.get("completion_tokens", TOFU_COMPLETION)
    if recipe == "finetune":  # the loss looks at the prompts' logits too
        tokens = {"prompt_tokens": 0, "completion_tokens": prompt + completion}
        return (
            how,
            model,
            memory_plan(model, rows=rows, **tokens, keeps_original=False, autocast=True, whole_logits=True),
        )

    judges = []
    if name := config.get("classifier"):
        judges.append(shapes(name, torch.float32).model)  # without its head over the vocabulary
    if name := config.get("base_model"):
        judges.append(shapes(name, dtype))
    rollouts = 0
    if config["method"] == "dareu":
        completion = config["max_completion_length"]
        rollouts = min(config.get("rollout_batch_size", 64), rows * config["steps_per_generation"])
    return (
        how,
        model,
        memory_plan(
            model,
            rows=rows,
            prompt_tokens=prompt,
            completion_tokens=completion,
            retain_rows=config["retain_batch_size"],
            retain_loss=config.get("retain_loss", "kl"),
            rollout_rows=rollouts,
            selected=selected,
            autocast=True,
            judges=judges,
        ),
    )


def devices(model: Any, alone: MemoryPlan, card: int) -> str:
    """How many cards of a size a config needs: 1, or 2, 4, … under FSDP2."""
    processes = 1
    while processes <= MOST:
        if alone.sharded(processes, model).total <= (1 - FREE) * card * 1e9:
            return str(processes)
        processes *= 2
    return "no"


def table(paths: list[Path]) -> str:
    """A Markdown table of plans in GB, a row a config."""
    parts = ("weights", "gradients", "optimizer", "original", "judges", "rollouts", "activations", "logits", "total")
    titles = ("weights", "gradients", "state", *parts[3:-1])
    head = ("config", "trains", *titles, "peak", *(f"{card} GB" for card in CARDS))
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'--:|' * (len(head) - 2)}"]
    for path in paths:
        how, model, alone = plan(path)
        numbers = [f"{getattr(alone, part) / 1e9:.1f}" for part in parts]
        name = f"{path.parent.name}/{path.stem}"
        fits = [devices(model, alone, card) for card in CARDS]
        lines.append(f"| {' | '.join([name, how, *numbers, *fits])} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the sizes of the public models and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, help="YAML files; default: those of the public models")
    paths = parser.parse_args().configs
    if not paths:
        print("| model | parameters | weights in float32 | in bfloat16 | KV cache of 1000 tokens in bfloat16 |")
        print("|---|--:|--:|--:|--:|")
        for name, config in public_models().items():
            size = parameter_bytes([empty_model(config)])
            cache = kv_cache_bytes(config, 1, 1000, torch.bfloat16)
            print(f"| {name} | {size // 4:,} | {size / 1e9:.1f} GB | {size / 2e9:.1f} GB | {cache / 1e9:.3f} GB |")
        print()
    print(table(paths or [CONFIGS / f"{name}.yaml" for name in SHOWN]))


if __name__ == "__main__":
    main()
