import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from dareu.deltas._patch_file import PatchedTensor, pack_positions, unpack_positions
from dareu.deltas.patches import Patch, apply_patch, make_patch
from dareu.masks import random_mask
from dareu.weights import CheckpointWeights, fingerprint

Build = Callable[..., nn.Module]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def save_pair(
    folder: Path, model: nn.Module, density: float, *, shards: tuple[str, str] = ("1GB", "1GB")
) -> tuple[Path, Path]:
    """A model's folder, and that of the same with exactly ceil(density * n) entries changed."""
    base, result = folder / "base", folder / "result"
    model.save_pretrained(base, max_shard_size=shards[0])
    (base / "tokenizer.json").write_text("{}", encoding="utf-8")
    mask = random_mask(model, density, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Drawn as the weights are, not moved a little: all bits of the new values are random.
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02
            parameter.copy_(torch.where(mask[name], drawn.to(parameter.dtype), parameter))
    model.save_pretrained(result, max_shard_size=shards[1])
    return base, result


@pytest.mark.parametrize(
    ("dtype", "tied", "shards"),
    [
        (torch.float32, True, ("1GB", "50KB")),
        (torch.bfloat16, False, ("50KB", "1GB")),
        (torch.float16, True, ("50KB", "50KB")),
    ],
)
def test_patch_and_undo_restore_every_byte(
    tmp_path: Path, tiny_llama: Build, dtype: torch.dtype, tied: bool, shards: tuple[str, str]
) -> None:
    model = tiny_llama(tie_word_embeddings=tied).to(dtype)
    base, result = save_pair(tmp_path, model, 0.2, shards=shards)
    made = make_patch(base, result, tmp_path / "patch.safetensors")
    assert made.base == fingerprint(CheckpointWeights(base))
    assert made.result == fingerprint(model)
    before = contents(base)

    undo = tmp_path / "undo.safetensors"
    applied = apply_patch(made.path, base, tmp_path / "applied", undo=undo)
    assert applied == made == Patch.read(made.path)
    assert contents(base) == before
    after = contents(tmp_path / "applied")
    assert after.keys() == before.keys()  # the base's shards, configuration and tokenizer
    assert {name for name in before if after[name] != before[name]} == {n for n in before if n.endswith("safetensors")}
    new = CheckpointWeights(tmp_path / "applied")
    assert all(torch.equal(new[name], weight) for name, weight in model.named_parameters())

    apply_patch(undo, tmp_path / "applied", tmp_path / "restored")
    assert contents(tmp_path / "restored") == before
    assert Patch.read(undo).forgotten and not made.forgotten
    with safe_open(undo, framework="np") as file:
        assert "FORGOTTEN DATA" in file.metadata()["patch"]
        assert {name.split("/")[0] for name in file.keys()} == {"positions", "forgotten_values"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("density", [0.001, 0.05, 0.2, 0.5, 0.95, 1.0])
def test_a_patch_is_no_larger_than_density_and_a_little(tmp_path: Path, dtype: torch.dtype, density: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(1024, 1024, generator=generator) * 0.02).to(dtype)
    new = (torch.randn(1024, 1024, generator=generator) * 0.02).to(dtype)
    mask = random_mask({"w": weight.shape}, density, seed=0)["w"]
    for name, tensor in (("base", weight), ("result", torch.where(mask, new, weight))):
        (tmp_path / name).mkdir()
        save_file({"w": tensor}, tmp_path / name / "model.safetensors")
    patch = make_patch(tmp_path / "base", tmp_path / "result", tmp_path / "patch.safetensors")
    assert patch.nbytes <= (density + 0.04) * patch.model_nbytes
    assert patch.changed == int((new[mask] != weight[mask]).sum()) <= int(mask.sum())
    apply_patch(patch.path, tmp_path / "base", tmp_path / "applied")
    assert contents(tmp_path / "applied") == contents(tmp_path / "result")


def test_random_bits_of_float32_fit_the_bound_too(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, (2, 1 << 18), dtype=np.uint32)
    mask = random_mask({"w": (1 << 18,)}, 0.5, seed=0)["w"].numpy()
    for name, values in (("base", bits[0]), ("result", np.where(mask, bits[1], bits[0]))):
        (tmp_path / name).mkdir()
        save_file({"w": torch.from_numpy(values.view(np.float32))}, tmp_path / name / "model.safetensors")
    patch = make_patch(tmp_path / "base", tmp_path / "result", tmp_path / "patch.safetensors")
    assert patch.nbytes <= (0.5 + 0.0325) * patch.model_nbytes
    apply_patch(patch.path, tmp_path / "base", tmp_path / "applied")
    assert contents(tmp_path / "applied") == contents(tmp_path / "result")  # NaNs keep their bits


def test_a_patch_holds_no_old_value(tmp_path: Path) -> None:
    # Every base value is 1 or 3; an entry that a mask selected and that kept its value stays out as well.
    base = {"w": torch.ones(64, 64), "b": torch.full((64,), 3.0), "n": torch.ones(8)}
    result = {"w": torch.ones(64, 64), "b": torch.full((64,), 3.0), "n": torch.ones(8)}
    result["w"][0, :10] = torch.arange(10) + 10.0
    result["b"][:] = 2.0
    for name, tensors in (("base", base), ("result", result)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    patch = make_patch(tmp_path / "base", tmp_path / "result", tmp_path / "patch.safetensors")
    assert {name: tensor.changed for name, tensor in patch.tensors.items()} == {"w": 10, "b": 64, "n": 0}
    assert set(load_file(patch.path)) == {"positions/w", "values/w", "positions/b", "values/b"}

    # It depends on the base through changed positions and its fingerprint alone: with other old values, the same patch
    (tmp_path / "other").mkdir()
    other = {"w": torch.where(result["w"] == 1, 1.0, -7.0), "b": torch.full((64,), 5.0), "n": torch.ones(8)}
    save_file(other, tmp_path / "other" / "model.safetensors")
    again = make_patch(tmp_path / "other", tmp_path / "result", tmp_path / "again.safetensors")
    one, two = load_file(patch.path), load_file(again.path)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert again.base != patch.base and again.result == patch.result


def test_a_tied_tensor_may_be_stored_twice_on_either_side(tmp_path: Path) -> None:
    old = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    new = old.clone()
    new[2] += 1
    once, twice = tmp_path / "once", tmp_path / "twice"
    for folder, tensor in ((once, old), (twice, old), (tmp_path / "new_once", new), (tmp_path / "new_twice", new)):
        folder.mkdir()
        names = ("embed", "head") if folder.name.endswith("twice") else ("embed",)
        save_file({name: tensor.clone() for name in names}, folder / "model.safetensors")
    for base, result, applied in (("once", "new_twice", "new_once"), ("twice", "new_once", "new_twice")):
        make_patch(tmp_path / base, tmp_path / result, tmp_path / "patch.safetensors")
        apply_patch(tmp_path / "patch.safetensors", tmp_path / base, tmp_path / f"from_{base}")
        assert contents(tmp_path / f"from_{base}") == contents(tmp_path / applied)


@pytest.mark.parametrize("changed", [1, 31, 32, 500, 999])
def test_positions_come_back_as_bits_or_gaps(changed: int) -> None:
    positions = np.sort(np.random.default_rng(0).choice(1000, changed, replace=False))
    entry = PatchedTensor("F32", (10, 100), 4000, 1000, changed)
    assert entry.as_gaps == (changed < 32)  # four bytes each in place of 125
    index = unpack_positions(pack_positions(positions, entry), entry)
    assert np.arange(1000)[index].tolist() == positions.tolist()


def test_other_files_of_weights_and_patches_are_left_out(tmp_path: Path, tiny_llama: Build) -> None:
    base, result = save_pair(tmp_path, tiny_llama(), 0.1)
    for name in ("consolidated.safetensors", "pytorch_model.bin", ".secret", "checkpoint-1/model.safetensors"):
        (base / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(base / "model.safetensors", base / name)
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool.jinja").write_text("{{ x }}", encoding="utf-8")
    make_patch(base, result, base / "patch.safetensors")  # beside the weights, whose file it is not
    apply_patch(base / "patch.safetensors", base, tmp_path / "applied")
    assert set(contents(tmp_path / "applied")) == {
        "additional_chat_templates/tool.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(tmp_path: Path, tiny_llama: Build) -> None:
    base, result = save_pair(tmp_path, tiny_llama(), 0.1)
    patch, out = tmp_path / "patch.safetensors", tmp_path / "out"
    make_patch(base, result, patch)
    tiny_llama(seed=1).save_pretrained(tmp_path / "other")
    tiny_llama(num_hidden_layers=1).save_pretrained(tmp_path / "smaller")
    tiny_llama().bfloat16().save_pretrained(tmp_path / "bf16")
    for name, content in (("short", patch.read_bytes()[:-50]), ("altered", bytearray(patch.read_bytes()))):
        if name == "altered":
            content[-20] ^= 1
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "taken").mkdir()
    (tmp_path / "undo_taken.safetensors").touch()
    shutil.copytree(base, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:-8])
    shutil.copytree(base, tmp_path / "index")
    (tmp_path / "index" / "model.safetensors").unlink()
    index = {"weight_map": {"w": "model-1.safetensors"}}
    (tmp_path / "index" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    shutil.copytree(tmp_path / "index", tmp_path / "escape")
    index = {"weight_map": {"w": "../base/model.safetensors"}}
    (tmp_path / "escape" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))

    for arguments, message in (
        ((tmp_path / "none.safetensors", base, out), "no patch file"),
        ((tmp_path / "short.safetensors", base, out), "not a whole patch"),
        ((tmp_path / "altered.safetensors", base, out), "not a whole patch"),
        ((base / "model.safetensors", base, out), "not a whole patch"),
        ((patch, tmp_path / "none", out), "no safetensors file"),
        ((patch, tmp_path / "cut", out), "not a whole safetensors file"),
        ((patch, tmp_path / "index", out), "model-1.safetensors, which the index lists, is missing"),
        ((patch, tmp_path / "escape", out), "is damaged"),
        ((patch, tmp_path / "other", out), "for other weights"),
        ((patch, result, out), "for other weights"),
        ((patch, tmp_path / "smaller", out), "another architecture.*is missing"),
        ((patch, tmp_path / "bf16", out), "another architecture.*is BF16 in place of F32"),
        ((patch, base, tmp_path / "taken"), "is there already"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_patch(*arguments)
    for undo, message in (
        (out / "undo.safetensors", "outside the folder"),
        (tmp_path / "old.safetensors", "give it a name with 'undo'"),
        (tmp_path / "undo_taken.safetensors", "is there already"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_patch(patch, base, out, undo=undo)
    for arguments, message in (
        ((base, base, out), "bit for bit"),
        ((base, tmp_path / "smaller", out), "is missing"),
        ((tmp_path / "smaller", base, out), "is one too many"),
        ((base, tmp_path / "bf16", out), "in place of F32"),
        ((base, result, result / "model.safetensors"), "another name"),
    ):
        with pytest.raises(ValueError, match=message):
            make_patch(*arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_result_that_is_not_the_promised_one_is_not_written(
    tmp_path: Path, tiny_llama: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, result = save_pair(tmp_path, tiny_llama(), 0.1)
    make_patch(base, result, tmp_path / "patch.safetensors")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("dareu.deltas.patches.unpack_values", lambda packed, kind, count: np.zeros(count, kind))
    with pytest.raises(ValueError, match="in place of"):
        apply_patch(tmp_path / "patch.safetensors", base, tmp_path / "out", undo=tmp_path / "undo.safetensors")
    assert sorted(tmp_path.rglob("*")) == before
