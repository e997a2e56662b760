"""Seconds of one DareU update against one of TRL's own GRPO, with the same reward, shapes and model.

    python benchmarks/rl_step.py
    python benchmarks/rl_step.py --hidden_size 256 --num_layers 4 --completions 16

All trainers sample, score and update in turn, step by step, so that whatever else the machine does meets all of them;
the ratio of the median steps counts. The retain term and the KL are off, which TRL does not have. Two more rows have
DareU's dense reward, for what slices cost, and its critic. The model is a random Llama of about 15M parameters by
default, in float32.
"""

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback, logging
from trl import GRPOConfig, GRPOTrainer

from dareu.models import new_llama, new_tokenizer
from dareu.trainers import DareUConfig, DareUTrainer


def letters(completions: list[str], **_: Any) -> list[float]:
    return [-text.count("e") / 100 for text in completions]


class DenseLetters:
    __name__ = "letters"

    def __call__(self, completions: list[str], **_: Any) -> list[float]:
        return letters(completions)

    def at(self, completions: list[str], ends: list[list[int]], **_: Any) -> list[list[float]]:
        return [[-text[:end].count("e") / 100 for end in row] for text, row in zip(completions, ends, strict=True)]


class StepTimes(TrainerCallback):
    """Wall-clock seconds from the beginning of an update to its end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=384)
    parser.add_argument("--num_layers", type=int, default=5)
    parser.add_argument("--vocab_size", type=int, default=8192)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="of a completion")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    logging.set_verbosity_error()

    words = [f"word{i}" for i in range(4 * args.vocab_size)]
    tokenizer = new_tokenizer([" ".join(words[i : i + 50]) for i in range(0, len(words), 50)], args.vocab_size)
    rows = Dataset.from_list([{"prompt": f"word{i} word{2 * i} word{3 * i}"} for i in range(64)])

    def times(trainer: type[Any], config: type[Any], reward: Any, folder: str, **options: Any) -> Any:
        model = new_llama(
            tokenizer,
            hidden_size=args.hidden_size,
            num_hidden_layers=args.num_layers,
            num_attention_heads=args.hidden_size // 64,
            intermediate_size=4 * args.hidden_size,
            max_position_embeddings=512,
        )
        settings = config(
            output_dir=folder,
            num_generations=args.completions,
            per_device_train_batch_size=args.completions,
            max_completion_length=args.tokens,
            generation_kwargs={"min_new_tokens": args.tokens},
            max_steps=args.steps + 1,
            learning_rate=1e-5,
            bf16=torch.cuda.is_available(),
            gradient_checkpointing=False,
            mask_truncated_completions=False,
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            **options,
        )
        watch = StepTimes()
        made = trainer(model, reward, settings, rows, processing_class=tokenizer, callbacks=[watch])
        return made, watch, sum(parameter.numel() for parameter in model.parameters())

    with tempfile.TemporaryDirectory() as folder:
        plain = {"retain_loss": "none", "kl_coef": 0.0}
        entries = {
            "TRL GRPO": times(GRPOTrainer, GRPOConfig, letters, folder, scale_rewards="none"),
            "DareU": times(DareUTrainer, DareUConfig, letters, folder, **plain),
            "DareU, 15 slices": times(DareUTrainer, DareUConfig, DenseLetters(), folder, **plain),
            "DareU, critic": times(DareUTrainer, DareUConfig, letters, folder, advantage_estimator="gae", **plain),
        }
        in_turn([made for made, _, _ in entries.values()])
    parameters = next(iter(entries.values()))[2]
    table = Table(
        title=f"{parameters / 1e6:.1f}M parameters, {args.completions} completions of {args.tokens} tokens, "
        f"{os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())} threads, median of {args.steps} updates"
    )
    for column in ("", "seconds", "ratio to TRL"):
        table.add_column(column, justify="right" if column else "left")
    medians = {name: statistics.median(watch.seconds[1:]) for name, (_, watch, _) in entries.items()}
    for name, seconds in medians.items():
        table.add_row(name, f"{seconds:.3f}", f"{seconds / medians['TRL GRPO']:.2f}")
    Console().print(table)


def in_turn(trainers: list[Any]) -> None:
    """Trains all of them, one update each before the next update of any."""
    import threading

    turns = [threading.Semaphore(0) for _ in trainers]

    class Turn(TrainerCallback):
        def __init__(self, number: int) -> None:
            self.number = number

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns[self.number].acquire()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns[(self.number + 1) % len(turns)].release()

    threads = []
    for number, trainer in enumerate(trainers):
        trainer.callback_handler.callbacks.insert(0, Turn(number))
        threads.append(threading.Thread(target=trainer.train))
    turns[0].release()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
