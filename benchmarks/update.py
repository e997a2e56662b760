"""Seconds and peak memory of an update of DareU's default against one of NPO with as many rows, and where they go.

    OMP_NUM_THREADS=1 python benchmarks/update.py
    OMP_NUM_THREADS=1 python benchmarks/update.py --hidden_size 576 --num_layers 30 --vocab_size 49152 --rows 32

Groups of 8 completions, two of them gold, used for four updates; a constant reward with slices, so that scoring is
nearly free; as many retained rows as completions, each twice in all, under the retain KL. The model is a random Llama,
all of whose weights are trained in float32, and the completions that it samples are as long as may be; the second line
has the shape of SmolLM2-135M. Each method runs in a process of its own, whose peak of anonymous memory above its level
before the model was made counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, logging

from dareu.methods.npo import npo
from dareu.models import new_tokenizer
from dareu.runs.memory import PeakMemory
from dareu.trainers import DareUConfig, DareUTrainer, UnlearnConfig, UnlearnTrainer

UPDATES = 4
PARTS = ("rollouts and scores", "retained rows", "optimizer", "forget rows")


class Constant:
    """A dense reward that says the same of everything but is not the same."""

    __name__ = "constant"

    def __call__(self, completions: list[str], **_: Any) -> list[float]:
        return [-(i % 7) / 7 for i, _ in enumerate(completions)]

    def at(self, completions: list[str], ends: list[list[int]], **_: Any) -> list[list[float]]:
        return [[-(i % 7) / 7] * len(row) for i, row in enumerate(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_layers", type=int, default=5)
    parser.add_argument("--vocab_size", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=64, help="completions of an update, and retained rows")
    parser.add_argument("--prompt_tokens", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=96, help="of an answer")
    parser.add_argument("--only", choices=["DareU", "NPO"], help="measure this method and print its numbers as JSON")
    args = parser.parse_args()
    if args.only is not None:
        print(json.dumps(measure(args)))
        return
    found = {}
    for method in ("DareU", "NPO"):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", method]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[method] = json.loads(output.splitlines()[-1])
    table = Table(
        title=f"{found['NPO']['parameters'] / 1e6:.1f}M parameters, vocabulary {args.vocab_size}, {args.rows} + "
        f"{args.rows} rows of {args.prompt_tokens} + {args.tokens} tokens, "
        f"{os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())} threads, mean of {UPDATES} updates"
    )
    for column in ("", "seconds", *PARTS, "peak, GB"):
        table.add_column(column, justify="right" if column else "left")
    for method, numbers in found.items():
        peak = "" if numbers["peak"] is None else f"{numbers['peak'] / 1e9:.2f}"
        shares = [numbers["parts"][part] for part in PARTS]
        table.add_row(method, *(f"{value:.2f}" for value in (sum(shares), *shares)), peak)
    Console(width=140).print(table)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds an update by part, and the peak memory, of one method."""
    logging.set_verbosity_error()
    words = [f"word{i}" for i in range(4 * args.vocab_size)]
    tokenizer = new_tokenizer([" ".join(words[i : i + 50]) for i in range(0, len(words), 50)], args.vocab_size)

    def text(number: int, first: int) -> str:
        ids = tokenizer(" ".join(f"word{first + 7 * i}" for i in range(number)))["input_ids"]
        return str(tokenizer.decode(ids[:number], skip_special_tokens=True))

    def rows(number: int) -> Dataset:
        made = [(text(args.prompt_tokens, i), text(args.tokens - 4, i + 1)) for i in range(number)]
        return Dataset.from_list([{"prompt": prompt, "completion": completion} for prompt, completion in made])

    config = LlamaConfig(
        vocab_size=max(args.vocab_size, len(tokenizer)),
        hidden_size=args.hidden_size,
        num_hidden_layers=args.num_layers,
        num_attention_heads=args.hidden_size // 64,
        num_key_value_heads=max(1, args.hidden_size // 192),
        intermediate_size=8 * args.hidden_size // 3,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    shared: dict[str, Any] = {
        "per_device_train_batch_size": args.rows,
        "retain_batch_size": args.rows,
        "max_steps": UPDATES,
        "learning_rate": 1e-5,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
    }
    spent = dict.fromkeys(PARTS, 0.0)
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
        model = LlamaForCausalLM(config)
        forget, retain = rows(args.rows), rows(2 * args.rows)
        trainer: Any
        if args.only == "NPO":
            settings = UnlearnConfig(output_dir=folder, **shared)
            trainer = UnlearnTrainer(model, npo, settings, forget, retain_dataset=retain, processing_class=tokenizer)
        else:
            trainer = DareUTrainer(
                model,
                Constant(),
                DareUConfig(
                    output_dir=folder,
                    max_completion_length=args.tokens,
                    steps_per_generation=2,
                    num_iterations=2,
                    num_gold=2,
                    num_uninformed=0,
                    kl_coef=0.0,
                    mask_truncated_completions=False,
                    generation_kwargs={"min_new_tokens": args.tokens},
                    **shared,
                ),
                forget,
                retain_dataset=retain,
                base_model=LlamaForCausalLM(config),
                processing_class=tokenizer,
            )
        timed(trainer, "_prepare_retain", spent, "retained rows")
        timed(trainer, "_retain_penalty", spent, "retained rows")
        timed(trainer, "_prepare_inputs", spent, "rollouts and scores")
        whole = {"updates": 0.0}
        timed(trainer, "training_step", whole, "updates")
        make = trainer.create_optimizer

        def create_optimizer(*given: Any) -> Any:
            made = make(*given)
            timed(made, "step", spent, "optimizer")
            return made

        trainer.create_optimizer = create_optimizer
        trainer.train()
    spent["forget rows"] = whole["updates"] - spent["retained rows"] - spent["rollouts and scores"]
    return {
        "parameters": model.num_parameters(),
        "parts": {part: seconds / UPDATES for part, seconds in spent.items()},
        "peak": memory.bytes,
    }


def timed(thing: Any, name: str, spent: dict[str, float], part: str) -> None:
    """Adds the seconds of every call of a method to a part."""
    method: Callable[..., Any] = getattr(thing, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - start

    setattr(thing, name, call)


if __name__ == "__main__":
    main()
