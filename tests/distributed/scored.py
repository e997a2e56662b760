"""What two processes score and select together, and one alone; run by torchrun, and imported by the tests beside it.

    python -m torch.distributed.run --nproc_per_node 2 scored.py FOLDER

FOLDER holds the folders "even" and "odd" of two models. What came out is written beside them.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from transformers import AutoModelForCausalLM

from dareu.cli import find_recipes
from dareu.masks import score_weights, select_top, weight_masks
from dareu.runs.program import leave_process_group
from dareu.weights import fingerprint
from dareu.weights.entries import local_part
from dareu.weights.sharding import whole

#: Of which two processes share the work; the second has none of the records to forget.
LENGTHS = {"forget": [[5, 9]], "retain": [[6, 4, 7], [8], [5, 5]]}
SCORES = ("wagle", "random", "magnitude", "snip", "gradient_product", "gradient", "wanda")
DENSITIES = (0.05, 0.3)


def batches(side: str) -> list[dict[str, Tensor]]:
    """Rows of different lengths, padded on the right; the first two tokens of each are the prompt."""
    generator = torch.Generator().manual_seed(len(side))
    made = []
    for lengths in LENGTHS[side]:
        ids = torch.randint(3, 390, (len(lengths), max(lengths)), generator=generator)
        attended = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
        labels = ids.masked_fill(~attended, -100)
        labels[:, :2] = -100
        made.append({"input_ids": ids, "attention_mask": attended.long(), "labels": labels})
    return made


def load(folder: Path, name: str, *, shard: bool = False) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32).train()
    model.model.norm.weight.requires_grad_(False)
    if shard:
        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(model)
    return model


def score(model: Any, name: Any, share: slice = slice(None), **options: Any) -> Any:
    return score_weights(model, name, *(batches(side)[share] for side in LENGTHS), **options)


def tied_scores(placement: Any = None) -> dict[str, Tensor]:
    """Few different numbers in parts of different sizes, one of them without a row for the second process."""
    made: dict[str, Tensor] = {}
    for i, shape in enumerate([(5, 3), (1, 4), (7,), (4, 6)]):
        numbers = torch.arange(torch.Size(shape).numel()).remainder(3 + i % 2).float().view(shape) - 1
        made[f"layers.{i // 2}.{i}"] = numbers
    if placement is None:
        return made
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {name: distribute_tensor(numbers, mesh, [placement]) for name, numbers in made.items()}


def message_of(call: Any, *args: Any, **options: Any) -> str:
    try:
        call(*args, **options)
    except ValueError as error:
        return str(error)
    return ""


def on_all(value: Any) -> list[Any]:
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, share = dist.get_rank(), slice(dist.get_rank(), None, dist.get_world_size())
    said: dict[str, Any] = {"world": dist.get_world_size()}
    for name in ("even", "odd"):
        for kind in ("data", "fsdp2"):
            model = load(folder, name, shard=kind == "fsdp2")
            required = [parameter.requires_grad for parameter in model.parameters()]
            for kept in SCORES if kind == "data" else SCORES[:-1]:
                case = f"{name}_{kind}_{kept}"
                scores = score(model, kept, share)
                again = score(model, kept, share)
                masks = list(weight_masks(model, scores, DENSITIES))
                said[case] = {
                    "same": on_all(all(torch.equal(local_part(scores[n]), local_part(again[n])) for n in scores)),
                    "gamma": on_all(scores.gamma),
                    "masks": [on_all(fingerprint(mask)) for mask in masks],
                    "own": on_all(sum(local_part(tensor).numel() for tensor in scores.values())),
                    "placements": [[repr(p) for p in t.placements] for t in scores.values() if isinstance(t, DTensor)],
                }
                found = {key: whole(tensor).contiguous() for key, tensor in scores.items()}
                if rank == 0:
                    save_file(found, folder / f"{case}.safetensors")
                    for mask in masks:
                        mask.save(folder / f"{case}_{mask.density}.safetensors")
            said[f"{name}_{kind}_left"] = on_all(
                model.training
                and [parameter.requires_grad for parameter in model.parameters()] == required
                and all(parameter.grad is None for parameter in model.parameters())
            )

    whole_model, sharded = load(folder, "odd"), load(folder, "odd", shard=True)
    mapped = score(whole_model, "wagle", share, accumulate_on="disk", folder=folder)
    in_memory = score(whole_model, "wagle", share)
    said["disk"] = on_all(all(torch.equal(mapped[key], in_memory[key]) for key in mapped))
    with torch.no_grad():  # the first process leaves its parameters gathered after this
        sharded(input_ids=torch.ones(1, 2, dtype=torch.int64))
    chosen = score(sharded, "gradient", share, exclude=["*embed_tokens"])
    said["excluded"] = on_all([len(chosen), fingerprint(next(weight_masks(sharded, chosen, [0.1])))])
    said["ties"] = on_all(
        all(
            torch.equal(mask, select_top(tied_scores(), density, scope)[key])
            for density in (0.01, 0.1, 0.35, 0.5, 0.77, 1)
            for scope in ("global", "layer", "tensor")
            for key, mask in select_top(tied_scores(Shard(0)), density, scope).items()  # type: ignore[arg-type]
        )
    )
    broken = tied_scores(Shard(0))
    if rank == 1:
        local_part(broken["layers.1.2"])[0] = float("nan")
    said["nan"] = on_all(message_of(select_top, broken, 0.1))
    with torch.no_grad():
        if rank == 1:
            local_part(sharded.model.layers[1].mlp.up_proj.weight)[0, 0] = float("inf")
    said["infinite"] = on_all(message_of(score, sharded, "wagle", share))
    mixed = tied_scores() | {"layers.0.1": tied_scores(Shard(0))["layers.0.1"]}
    said["mixed"] = on_all(message_of(select_top, mixed, 0.1))
    said["columns"] = on_all(message_of(select_top, tied_scores(Replicate()), 0.1))
    said["wanda"] = on_all(message_of(score, sharded, "wanda", share))
    said["sharded on disk"] = on_all(message_of(score, sharded, "wagle", share, accumulate_on="disk"))
    said["no record"] = on_all(message_of(score_weights, whole_model, "gradient"))
    partly = load(folder, "even")
    fully_shard(partly.model.layers[0])
    said["partly"] = on_all(message_of(score, partly, "wagle", share))
    said["recipe"] = on_all(recipe(folder))
    said["recipe's wanda"] = on_all(recipe(folder, "--score", "wanda"))
    if rank == 0:
        (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")


def recipe(folder: Path, *words: str) -> Any:
    """Runs `attribute_weights` under FSDP2; the message with which it stopped."""
    sys.path.insert(0, str(Path(__file__).parent))
    from cases import as_fsdp2

    as_fsdp2()
    sys.argv = ["attribute_weights", "--model_name_or_path", str(folder / "even"), "--num_forget", "1", *words]
    sys.argv += ["--dataset", str(folder / "data.jsonl"), "--output_dir", str(folder / "run"), "--seed", "3"]
    # The group is needed afterwards
    with patch("dareu.runs.program.leave_process_group"):
        try:
            runpy.run_path(str(find_recipes()["attribute_weights"]), run_name="__main__")
        except SystemExit as stopped:
            return stopped.code
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_process_group()
