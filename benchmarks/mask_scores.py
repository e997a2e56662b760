"""Memory and time of making a mask: streamed, in memory and on disk, against bare backward passes and a sorted ranking.

    python benchmarks/mask_scores.py
    python benchmarks/mask_scores.py --batches 2 --hidden_size 512 --intermediate_size 1408 --num_layers 2

Each row runs in a process of its own. Memory is the peak of anonymous resident memory above the level after loading, as
a multiple of the bytes of the float32 parameters, activations included; time is the CPU time of scores and selection
over that of forward and backward passes over the same batches and nothing else. The sorted row is the way of WAGLE's
public code, written plainly: both mean gradients and the scores stand whole, and two argsorts rank all entries.

The model is a random float32 Llama of two wide layers, nearer to those of large models than many narrow ones: the share
of activations depends on width, not on depth. The streamed rows take the records of a batch two at a time
(`--pass_size`), which the scores do not depend on; the others take whole batches. glibc is told to give freed tensors
back at once, or the peak would hold what fragments of its heap happen to stay behind.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, logging

from dareu.masks import score_weights, select_top
from dareu.runs.memory import PeakMemory

STAGES = {
    "bare": "bare backward passes",
    "memory": "streamed, sums in memory",
    "disk": "streamed, sums on disk",
    "sorted": "sorted, as in the paper's code",
}
Batches = list[dict[str, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=2048)
    parser.add_argument("--intermediate_size", type=int, default=5504)
    parser.add_argument("--num_layers", type=int, default=2)
    parser.add_argument("--vocab_size", type=int, default=4096)
    parser.add_argument("--batches", type=int, default=16, help="of forget records, and as many of retained ones")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--pass_size", type=int, default=2, help="records that a streamed row takes at once")
    parser.add_argument("--tokens", type=int, default=128, help="of a record; the first quarter is its prompt")
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--folder", help="where masks, and the sums on disk, are written; default: a temporary one")
    parser.add_argument("--stage", choices=STAGES, help="run this one here and print what it took")
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(stage(args)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = {}
        for name in STAGES:
            words = [sys.executable, __file__, *sys.argv[1:], "--stage", name, "--folder", folder]
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
            ended = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            rows[name] = json.loads(ended.stdout)
        masks = {name: np.load(file) for name in STAGES if (file := Path(folder, f"{name}.npy")).exists()}
    table = Table(
        title=f"{rows['bare']['parameters'] / 1e6:.1f}M parameters, 2 x {args.batches} batches of {args.batch_size} x "
        f"{args.tokens} tokens, density {args.density}, {rows['bare']['threads']} threads"
    )
    for column in ("", "peak memory", "CPU seconds", "time", "of it selection, s", "entries unlike sorted"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        unlike = f"{int(np.bitwise_count(masks[name] ^ masks['sorted']).sum())}" if name in masks else ""
        table.add_row(
            STAGES[name],
            f"{row['peak'] / (4 * row['parameters']):.2f}",
            f"{row['seconds']:.1f}",
            f"{row['seconds'] / rows['bare']['seconds']:.2f}",
            f"{row['selection']:.1f}" if "selection" in row else "",
            unlike,
        )
    Console().print(table)


def stage(args: argparse.Namespace) -> dict[str, Any]:
    logging.set_verbosity_error()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=args.vocab_size,
            hidden_size=args.hidden_size,
            intermediate_size=args.intermediate_size,
            num_hidden_layers=args.num_layers,
            num_attention_heads=max(1, args.hidden_size // 128),
        )
    ).eval()
    forget, retain = (
        [make_batch(args.vocab_size, args.batch_size, args.tokens) for _ in range(args.batches)] for _ in range(2)
    )
    found: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
    }
    # Once before the clock starts, as the libraries load what they need on the first call; of a few tokens, since
    # freed memory that the process keeps would hide as much of the peak
    passes(model, [make_batch(args.vocab_size, 1, 8)])
    with PeakMemory() as memory:
        start = time.process_time()
        if args.stage == "bare":
            passes(model, forget + retain)
            masks = {}
        elif args.stage == "sorted":
            masks = by_sorting(model, forget, retain, args.density)
        else:
            sides = [[part for batch in side for part in split(batch, args.pass_size)] for side in (forget, retain)]
            scores = score_weights(model, "wagle", *sides, accumulate_on=args.stage, folder=args.folder)
            middle = time.process_time()
            masks = select_top(scores, args.density)
            found["selection"] = time.process_time() - middle
        found["seconds"] = time.process_time() - start
    found["peak"] = memory.bytes
    if masks:
        bits = np.packbits(torch.cat([mask.reshape(-1) for mask in masks.values()]).numpy())
        np.save(Path(args.folder or tempfile.gettempdir()) / f"{args.stage}.npy", bits)
    return found


def make_batch(vocab_size: int, batch_size: int, tokens: int) -> dict[str, Tensor]:
    ids = torch.randint(vocab_size, (batch_size, tokens))
    labels = ids.clone()
    labels[:, : tokens // 4] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def split(batch: dict[str, Tensor], size: int) -> Batches:
    rows = len(batch["input_ids"])
    return [{key: value[start : start + size] for key, value in batch.items()} for start in range(0, rows, size)]


def passes(model: LlamaForCausalLM, batches: Batches) -> None:
    for batch in batches:
        model(**batch, use_cache=False).loss.backward()
        model.zero_grad()


def by_sorting(model: LlamaForCausalLM, forget: Batches, retain: Batches, density: float) -> dict[str, Tensor]:
    sides = []
    for batches in (forget, retain):
        for batch in batches:
            (model(**batch, use_cache=False).loss / len(batches)).backward()
        sides.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        model.zero_grad()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def norm(factors: dict[str, Tensor]) -> Tensor:
        return torch.cat([(factors[name] * sides[0][name]).flatten() for name in factors]).norm(dtype=torch.float64)

    gamma = norm(sides[1]) / norm(weights)
    scores = {name: weights[name] * sides[0][name] - sides[1][name] * sides[0][name] / gamma for name in weights}
    flat = torch.cat([score.flatten() for score in scores.values()]).abs()
    ranks = flat.argsort(descending=True).argsort()
    chosen = (ranks < density * len(flat)).split([score.numel() for score in scores.values()])
    return {name: mask.view(score.shape) for (name, score), mask in zip(scores.items(), chosen, strict=True)}


if __name__ == "__main__":
    main()
