"""Seconds and memory of a training step under a mask, against torch's fused dense AdamW.

    python benchmarks/masked_step.py
    python benchmarks/masked_step.py --densities 0.05 0.2 0.5 0.95 --steps 20

A step is forward, backward, clipping on the norm, and the optimizer; under a mask the frozen gradients are dropped
before. All kinds take one step each in turn, so that whatever else the machine does meets all of them, every kind on a
random Llama of its own, about 15M parameters in float32 by default; the time is the median, and the ratio the median
of the turns' ratios. On a CPU it is CPU time, over all threads, of which other work on the machine takes least.

Memory is what the optimizer keeps beside weights and gradients: the state, which is moments and step counts, and the
selection, which is positions or a mask; "of dense" relates both to the dense optimizer's state. Below, the same for
bfloat16 weights, whose selected entries have float32 masters. The mask that the caller gave, 1 byte an entry, stays
where the caller has it and is apart.
"""

import argparse
import os
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from dareu.masks import MaskedAdamW, random_mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=384)
    parser.add_argument("--num_layers", type=int, default=5)
    parser.add_argument("--vocab_size", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--densities", type=float, nargs="+", default=[0.05, 0.2, 0.5, 0.95])
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = LlamaConfig(
        tie_word_embeddings=True,
        vocab_size=args.vocab_size,
        hidden_size=args.hidden_size,
        intermediate_size=4 * args.hidden_size,
        num_hidden_layers=args.num_layers,
        num_attention_heads=args.hidden_size // 64,
        max_position_embeddings=args.tokens,
    )

    def new_model(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
        torch.manual_seed(0)
        return LlamaForCausalLM(config).to(device, dtype)

    def masked(model: nn.Module, density: float) -> MaskedAdamW:
        mask = random_mask(model, density, seed=0)  # on the CPU, as a file's
        return MaskedAdamW(model.named_parameters(), mask, lr=1e-5, weight_decay=0.1)

    ids = torch.randint(args.vocab_size, (args.rows, args.tokens), device=device)
    model = new_model()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    dense = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, fused=True)
    kinds: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {"dense": (model, dense)}
    for density in args.densities:
        model = new_model()
        kinds[f"{density:g}"] = (model, masked(model, density))
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in kinds}
    for turn in range(args.steps + 2):
        for name, (model, optimizer) in kinds.items():
            taken = step(model, optimizer, ids)
            if turn > 1:  # the first turns make the state
                times[name].append(taken)

    table = Table(
        title=f"{parameters / 1e6:.1f}M parameters, {args.rows} × {args.tokens} tokens, {device.type}, "
        f"{os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())} threads, median of {args.steps} steps"
    )
    columns = ("density", "step ms", "ratio", "dropping ms", "update ms", "state MB", "selection MB", "of dense")
    for column in columns:
        table.add_column(column, justify="right")
    state = sum(t.nbytes for entry in dense.state.values() for t in entry.values())
    for name, (_, optimizer) in kinds.items():
        step_ms, dropping_ms, update_ms = (1e3 * statistics.median(column) for column in zip(*times[name], strict=True))
        ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in zip(times[name], times["dense"], strict=True))
        row = [name, f"{step_ms:.0f}", f"{ratio:.3f}", f"{dropping_ms:.1f}", f"{update_ms:.1f}"]
        if isinstance(optimizer, MaskedAdamW):
            kept = optimizer.memory()
            share = (kept["moments"] + kept["selection"]) / state
            row += [f"{kept['moments'] / 1e6:.1f}", f"{kept['selection'] / 1e6:.1f}"]
            row += [f"{share:.3f}"]
        else:
            row += [f"{state / 1e6:.1f}", "–", "1.000"]
        table.add_row(*row)
    Console().print(table)
    del kinds, model, optimizer

    table = Table(title="The same with bfloat16 weights")
    for column in ("density", "moments MB", "masters MB", "selection MB"):
        table.add_column(column, justify="right")
    for density in args.densities:
        model = new_model(torch.bfloat16)
        optimizer = masked(model, density)
        step(model, optimizer, ids)
        table.add_row(f"{density:g}", *(f"{optimizer.memory()[kind] / 1e6:.1f}" for kind in ORDER))
    Console().print(table)


ORDER = ("moments", "masters", "selection")


def step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor) -> tuple[float, float, float]:
    """Seconds of a step, of the dropping of frozen gradients in it, and of its update."""

    def seconds() -> float:
        if ids.is_cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    start = seconds()
    model(input_ids=ids, labels=ids).loss.backward()
    computed = seconds()
    if isinstance(optimizer, MaskedAdamW):
        optimizer.drop_frozen_gradients()
    dropped = seconds()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    clipped = seconds()
    optimizer.step()
    end = seconds()
    optimizer.zero_grad()
    return end - start, dropped - computed, end - clipped


if __name__ == "__main__":
    main()
