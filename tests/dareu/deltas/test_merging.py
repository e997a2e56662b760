"""Merged model folders: the formula entry by entry, and every other bit the base's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from dareu.deltas.merging import MergeMethod, TaskVector, merge_models, merge_vectors
from dareu.masks import random_mask
from dareu.weights import CheckpointWeights

Build = Callable[..., nn.Module]
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def saved(folder: Path, model: nn.Module, number: int = 2, shard: str = "1GB") -> tuple[Path, list[Path]]:
    """The folders of a model and of copies in each of which 30 % of the entries were moved."""
    base = folder / "base"
    model.save_pretrained(base, max_shard_size=shard)
    (base / "tokenizer.json").write_text("{}", encoding="utf-8")
    original = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    parts = []
    for k in range(number):
        mask, generator = random_mask(model, 0.3, seed=k), torch.Generator().manual_seed(k)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                step = 0.05 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(torch.where(mask[name], (original[name] + step).to(parameter.dtype), original[name]))
        parts.append(folder / f"part{k}")
        model.save_pretrained(parts[-1])
    return base, parts


def tensors(folder: Path) -> dict[str, Tensor]:
    weights = CheckpointWeights(folder)
    return {name: weights[name] for name in weights}


def same_bits(one: Tensor, other: Tensor) -> Tensor:
    return one.view(BITS[one.dtype]) == other.view(BITS[other.dtype])


@pytest.mark.parametrize(
    ("method", "density", "weight"),
    [("ties", 0.2, 1.0), ("ties", 0.05, 0.5), ("dare_ties", 0.5, -1.0), ("task_arithmetic", 0.2, 2.0)],
)
@pytest.mark.parametrize(("dtype", "shard"), [(torch.float32, "1GB"), (torch.bfloat16, "20KB")])
def test_folders_are_merged_as_the_formula_says(
    method: MergeMethod,
    density: float,
    weight: float,
    dtype: torch.dtype,
    shard: str,
    tiny_llama: Build,
    tmp_path: Path,
) -> None:
    base, parts = saved(tmp_path, tiny_llama().to(dtype), number=3, shard=shard)
    done = merge_models(base, parts, tmp_path / "merged", method, density=density, weight=weight, seed=5)

    old, new = tensors(base), tensors(tmp_path / "merged")
    vectors = [TaskVector(old, tensors(part), "part") for part in parts]
    moved = 0
    for name, change in merge_vectors(vectors, method, density=density, seed=5):
        assert torch.equal(new[name], (old[name].float() + weight * change).to(dtype))
        assert same_bits(new[name], old[name])[change == 0].all()
        moved += int((~same_bits(new[name], old[name])).sum())
    assert list(new) == list(old) and done == (sum(tensor.numel() for tensor in old.values()), moved)
    assert 0 < moved < done.entries

    files = {path.name for path in base.iterdir()}
    assert {path.name for path in (tmp_path / "merged").iterdir()} == files
    assert all((tmp_path / "merged" / n).read_bytes() == (base / n).read_bytes() for n in files if n.endswith("json"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == dtype


def test_what_no_part_moved_keeps_its_sign_of_zero(tmp_path: Path) -> None:
    for name, last in (("base", 1.0), ("part", 2.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.tensor([-0.0, 0.0, last])}, tmp_path / name / "model.safetensors")
    merge_models(tmp_path / "base", [tmp_path / "part"], tmp_path / "merged", "ties", density=1.0)
    merged = load_file(tmp_path / "merged" / "model.safetensors")["w"]
    assert merged.tolist() == [0, 0, 2] and merged.signbit().tolist() == [True, False, False]


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
def test_one_part_whole_is_that_part(method: MergeMethod, tiny_llama: Build, tmp_path: Path) -> None:
    base, (part,) = saved(tmp_path, tiny_llama().to(torch.bfloat16), number=1)
    merge_models(base, [part], tmp_path / "merged", method, density=1.0)
    expected, found = tensors(part), tensors(tmp_path / "merged")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("twice", ["base", "part0", "both"])
def test_tied_weights_count_once_wherever_they_are_stored(twice: str, tiny_llama: Build, tmp_path: Path) -> None:
    base, parts = saved(tmp_path, tiny_llama(tie_word_embeddings=True))
    done = merge_models(base, parts, tmp_path / "once", density=0.2)
    expected = tensors(tmp_path / "once")
    assert "lm_head.weight" not in expected
    for folder in (base, *parts) if twice == "both" else (tmp_path / twice,):
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert merge_models(base, parts, tmp_path / "merged", density=0.2) == done
    found = tensors(tmp_path / "merged")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert ("lm_head.weight" in found) == (twice != "part0")
    if twice != "part0":
        assert torch.equal(found["lm_head.weight"], expected["model.embed_tokens.weight"])


def test_alike_matrices_that_training_told_apart_are_merged_each(tmp_path: Path) -> None:
    zeros = torch.zeros(2, 2)
    for name, weights in (("base", (zeros, zeros)), ("part", (zeros + 1, zeros + 2))):
        (tmp_path / name).mkdir()
        save_file({"a": weights[0].clone(), "b": weights[1].clone()}, tmp_path / name / "model.safetensors")
    done = merge_models(tmp_path / "base", [tmp_path / "part"], tmp_path / "merged", density=1.0)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert done == (8, 8) and (merged["a"] == 1).all() and (merged["b"] == 2).all()


def refused(reason: str, *arguments: object, **options: object) -> None:
    parent = Path(str(arguments[2])).parent
    before = sorted(parent.rglob("*"))
    with pytest.raises(ValueError, match=reason) as error:
        merge_models(*arguments, **options)  # type: ignore[arg-type]
    assert str(error.value).endswith(".") and sorted(parent.rglob("*")) == before


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_models_that_do_not_fit_are_refused_before_anything_is_written(tiny_llama: Build, tmp_path: Path) -> None:
    base, (part, other) = saved(tmp_path, tiny_llama())
    out, norm = tmp_path / "merged", "model.norm.weight"
    changes: dict[str, Callable[[dict[str, Tensor]], object]] = {
        f"'{norm}' is missing": lambda weights: weights.pop(norm),
        f"'{norm}' has shape \\[3\\] in place of \\[32\\]": lambda weights: weights.update({norm: torch.ones(3)}),
        f"'{norm}' is BF16 in place of F32": lambda weights: weights.update({norm: weights[norm].bfloat16()}),
        "'more' is one too many": lambda weights: weights.update(more=torch.ones(3)),
        f"part1 or its base has weights in '{norm}' that are not finite": lambda weights: weights[norm].fill_(np.nan),
    }
    for reason, change in changes.items():
        broken = tmp_path / "part1"
        shutil.rmtree(broken)
        shutil.copytree(part, broken)
        rewrite(broken, change)
        for method in ("ties", "task_arithmetic"):
            refused(reason, base, [part, other], out, method)
    refused("is there already", base, [part], part)
    refused("merge weight is inf", base, [part], out, weight=np.inf)
    refused("merge weight 1e\\+41 takes .* beyond torch.float32", base, [part], out, "ties", weight=1e41)
    refused("nothing to merge", base, [], out)
    refused("no safetensors file", base, [tmp_path], out)


def test_what_is_no_float_must_be_the_bases(tmp_path: Path) -> None:
    for name, steps in (("base", 1), ("same", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        weights = {"w": torch.tensor([float(len(name))]), "steps": torch.tensor([steps])}
        save_file(weights, tmp_path / name / "model.safetensors")
    merge_models(tmp_path / "base", [tmp_path / "same"], tmp_path / "merged")
    assert load_file(tmp_path / "merged" / "model.safetensors")["steps"].tolist() == [1]
    refused(
        "has other values in 'steps' than .* I64 is not merged", tmp_path / "base", [tmp_path / "other"], tmp_path / "x"
    )


MEASURED = """
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
from dareu.runs.memory import PeakMemory
from dareu.deltas.merging import merge_models


def merge(folder):
    merge_models(folder / "base", [folder / f"part{k}" for k in range(3)], folder / "merged")


merge(Path(sys.argv[1], "small"))  # what torch itself takes at its first use is not the point
with PeakMemory(interval=0.001) as memory:
    merge(Path(sys.argv[1], "large"))
print(memory.bytes)
"""


def save_random(folder: Path, layers: int) -> int:
    """Writes a base and three parts of layers of half a MiB; the bytes of one of them."""
    for seed, name in enumerate(("base", "part0", "part1", "part2")):
        generator = torch.Generator().manual_seed(seed)
        weights = {f"layers.{i:03}.weight": torch.randn(256, 512, generator=generator) for i in range(layers)}
        (folder / name).mkdir(parents=True)
        save_file(weights, folder / name / "model.safetensors")
    return sum(weight.nbytes for weight in weights.values())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_no_model_is_in_memory(tmp_path: Path) -> None:
    save_random(tmp_path / "small", 4)
    size = save_random(tmp_path / "large", 96)
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    # glibc then gives freed memory back at once, so that what is counted is what is held
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    # A byte an entry while a vector's mask is chosen, a bit an entry of each part, and the tensors of one name
    assert size / 4 < int(result.stdout) < size
