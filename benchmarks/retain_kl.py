"""Memory and time of the retain KL in tiles of tokens, against arrays of all tokens by the whole vocabulary.

    python benchmarks/retain_kl.py
    python benchmarks/retain_kl.py --vocab_sizes 49152 --rows 32 --repeats 5

Each row is KL(teacher ‖ student) of retained answers, forward and backward of the student, with a random float32 Llama
of a few layers and tied embeddings and a frozen copy of it that is a little off. "plain" is the loss as it is written
down: both models' logits, their log-softmaxes, and autograd; "tiles" is what the trainers compute.

Memory is the peak of anonymous resident memory above the level after loading, each way in a process of its own; what
the head and its loss took of it is the peak less that of a third process, which goes through both models and back
without any head. Time is the CPU time of a step of each way, in turn in one process, so that whatever else the machine
does meets both; the ratio is the median of the turns'. glibc is told to give freed tensors back at once, or the peak
would hold what fragments of its heap happen to stay behind.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, logging

from dareu.models.forward import completion_logits, completion_mean, completion_predictions
from dareu.runs.memory import PeakMemory

Batch = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab_sizes", type=int, nargs="+", default=[4096, 49152, 151936])
    parser.add_argument("--hidden_size", type=int, default=576)
    parser.add_argument("--num_layers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--prompt_tokens", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96, help="of an answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stage", nargs=2, metavar=("WAY", "VOCABULARY"), help="run this one here and print it")
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(stage(args, args.stage[0], int(args.stage[1]))))
        return
    table = Table(
        title=f"{args.rows} rows of {args.prompt_tokens} + {args.tokens} tokens, width {args.hidden_size}, "
        f"{args.num_layers} layers, {os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())} threads"
    )
    columns = ("vocabulary", "plain, GB", "tiles, GB", "ratio", "of head and loss", "plain, s", "tiles, s", "time")
    for column in (*columns, "loss apart by"):
        table.add_column(column, justify="right")
    for size in args.vocab_sizes:
        peaks = {way: child(way, size)["peak"] / 1e9 for way in (*WAYS, "no head")}
        timed = child("time", size)
        plain, tiles = (peaks[way] for way in WAYS)
        table.add_row(
            f"{size}",
            f"{plain:.2f}",
            f"{tiles:.2f}",
            f"{tiles / plain:.2f}",
            f"{(tiles - peaks['no head']) / (plain - peaks['no head']):.2f}",
            *(f"{statistics.median(timed[way]):.1f}" for way in WAYS),
            f"{statistics.median(b / a for a, b in zip(*(timed[way] for way in WAYS), strict=True)):.2f}",
            f"{timed['apart']:.0e}",
        )
    Console(width=140).print(table)


def child(way: str, vocab_size: int) -> dict[str, Any]:
    words = [sys.executable, __file__, *sys.argv[1:], "--stage", way, str(vocab_size)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    ended = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def stage(args: argparse.Namespace, way: str, vocab_size: int) -> dict[str, Any]:
    logging.set_verbosity_error()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=args.hidden_size,
            intermediate_size=8 * args.hidden_size // 3,
            num_hidden_layers=args.num_layers,
            num_attention_heads=args.hidden_size // 64,
            tie_word_embeddings=True,
        )
    )
    teacher = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    # Once before anything is measured, as the libraries load what they need on the first call; of few tokens, since
    # freed memory that the process keeps would hide as much of the peak.
    for step in (*WAYS.values(), without_head):
        step(model, teacher, make_batch(vocab_size, 1, 2, 2))
        model.zero_grad()
    batch = make_batch(vocab_size, args.rows, args.prompt_tokens, args.tokens)
    if way != "time":
        with PeakMemory() as memory:
            (WAYS | {"no head": without_head})[way](model, teacher, batch)
        return {"peak": memory.bytes}
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    losses: dict[str, float] = {}
    for _ in range(args.repeats):
        for name, step in WAYS.items():
            model.zero_grad()
            start = time.process_time()
            losses[name] = step(model, teacher, batch)
            times[name].append(time.process_time() - start)
    plain, tiles = losses.values()
    return times | {"apart": abs(plain - tiles)}


def make_batch(vocab_size: int, rows: int, prompt_tokens: int, tokens: int) -> Batch:
    ids = torch.randint(vocab_size, (rows, prompt_tokens + tokens))
    labels = ids.clone()
    labels[:, :prompt_tokens] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def plainly(model: LlamaForCausalLM, teacher: LlamaForCausalLM, batch: Batch) -> float:
    with torch.no_grad():
        theirs = completion_logits(teacher, batch)
    ours = completion_logits(model, batch)
    teacher_logps, student_logps = theirs.logits.log_softmax(-1), ours.logits.log_softmax(-1)
    each = (teacher_logps.exp() * (teacher_logps - student_logps)).sum(-1)
    loss = (ours.row_sum(each) / ours.lengths()).mean()
    loss.backward()
    return loss.item()


def in_tiles(model: LlamaForCausalLM, teacher: LlamaForCausalLM, batch: Batch) -> float:
    loss = completion_mean(model, batch, "kl", teacher=completion_predictions(teacher, batch))
    loss.backward()
    return loss.item()


def without_head(model: LlamaForCausalLM, teacher: LlamaForCausalLM, batch: Batch) -> float:
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        teacher.model(**inputs, use_cache=False)
    model.model(**inputs, use_cache=False).last_hidden_state.sum().backward()
    return 0.0


WAYS: dict[str, Callable[[LlamaForCausalLM, LlamaForCausalLM, Batch], float]] = {"plain": plainly, "tiles": in_tiles}


if __name__ == "__main__":
    main()
