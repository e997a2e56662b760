import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dareu.masks import WeightMask, random_mask, weight_mask
from dareu.weights import fingerprint


def small_model(seed: int = 0) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(generator=generator)
    return model


def mask_for(model: nn.Module, gamma: float | None = None) -> WeightMask:
    masks = random_mask(model, 0.3, seed=0)
    return WeightMask(masks, density=0.3, score="random", fingerprint=fingerprint(model), gamma=gamma)


@pytest.mark.parametrize("gamma", [None, 0.0, 1e-6, 0.1 + 0.2, math.inf])
def test_a_mask_is_loaded_as_it_was_saved(tmp_path: Path, gamma: float | None) -> None:
    masks = {
        "z": torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) < 0.5,
        "a.weight": torch.ones(17, dtype=torch.bool)[::2],
        "scalar": torch.tensor(True),
        "empty": torch.zeros(0, 4, dtype=torch.bool),
    }
    saved = WeightMask(masks, density=0.25, score="wagle", fingerprint="ab12", gamma=gamma)
    saved.save(tmp_path / "new" / "mask.safetensors")
    loaded = WeightMask.load(tmp_path / "new" / "mask.safetensors")
    assert list(loaded) == list(masks)
    assert all(torch.equal(loaded[name], mask) and loaded[name].dtype == torch.bool for name, mask in masks.items())
    assert (loaded.density, loaded.score, loaded.fingerprint, loaded.gamma) == (0.25, "wagle", "ab12", gamma)
    assert (loaded.count, loaded.total) == (saved.count, saved.total) == (int(masks["z"].sum()) + 10, 31)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mask.safetensors"]


def test_the_file_takes_a_bit_an_entry_and_is_the_same_each_time(tmp_path: Path) -> None:
    mask = WeightMask(random_mask({"w": (1000, 80)}, 0.2, seed=0), 0.2, "random", "ab12")
    mask.save(tmp_path / "a")
    mask.save(tmp_path / "b")
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert 10_000 <= len(content) < 10_500


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mask.safetensors"
    mask = mask_for(small_model())
    mask.save(path)
    old = path.read_bytes()

    def fail(tensors: dict[str, Tensor], filename: Path, metadata: dict[str, str]) -> None:
        filename.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(weight_mask, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        mask.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_a_whole_mask_is_refused_in_one_sentence(tmp_path: Path) -> None:
    good = tmp_path / "good"
    mask_for(small_model()).save(good)
    content = good.read_bytes()
    bad = tmp_path / "bad"
    changed = bytearray(content)
    changed[-1] ^= 1
    for broken in (content[:-3], content[:100], content[:4], b"", b'{"a": 1}' * 9, bytes(changed)):
        bad.write_bytes(broken)
        with pytest.raises(ValueError, match=r"bad' is not a whole weight mask .*; make it again\.$"):
            WeightMask.load(bad)
    for metadata in (None, {"mask": "{}"}, {"mask": "[]"}, {"mask": "?"}, {"format": "pt"}):
        save_file({"w": torch.zeros(3, dtype=torch.uint8)}, bad, metadata=metadata)
        with pytest.raises(ValueError, match="is not a whole weight mask"):
            WeightMask.load(bad)
    with pytest.raises(ValueError, match="There is no mask file"):
        WeightMask.load(tmp_path / "absent")


def test_masks_hold_bool_tensors_only() -> None:
    with pytest.raises(ValueError, match=r"'w' has dtype torch\.float32"):
        WeightMask({"w": torch.ones(2)}, 0.5, "wagle", "")


def test_a_mask_fits_its_own_model_alone() -> None:
    model = small_model()
    mask = mask_for(model)
    mask.verify(model)
    mask.verify(dict(model.named_parameters()))

    other = small_model(seed=1)
    with pytest.raises(ValueError, match=r"for other weights of the same shapes .* make a mask from this model"):
        mask.verify(other)
    rounded = copy.deepcopy(model).bfloat16()
    with pytest.raises(ValueError, match="values differ, or were rounded in loading"):
        mask.verify(rounded)
    mask_for(rounded).verify(copy.deepcopy(rounded).float())  # the same numbers
    other = copy.deepcopy(model)
    other[0].bias.data[0] = torch.nextafter(other[0].bias.data[0], torch.tensor(math.inf))
    with pytest.raises(ValueError, match="other weights"):
        mask.verify(other)
    with pytest.raises(ValueError, match=r"parameter '0.weight' has shape \(7, 5\) but the model's has \(7, 6\)"):
        mask.verify(nn.Sequential(nn.Linear(6, 7), nn.LayerNorm(7)))
    with pytest.raises(ValueError, match=r"lacks parameter '2.weight' of the model"):
        mask.verify(nn.Sequential(*model, nn.Linear(7, 7)))
    with pytest.raises(ValueError, match=r"has parameter '1.weight', which the model lacks"):
        mask.verify(nn.Sequential(model[0]))


def test_the_fingerprint_is_of_names_types_shapes_and_bits() -> None:
    model = small_model()
    print_ = fingerprint(model)
    assert len(print_) == 32
    weights = dict(model.named_parameters())
    assert fingerprint(dict(reversed(weights.items()))) == print_
    assert fingerprint({name: p.detach().t().clone().t() for name, p in weights.items()}) == print_

    changed = copy.deepcopy(model).train()
    changed[0].weight.requires_grad_(False)
    changed[0].bias.grad = torch.ones(7)
    assert fingerprint(changed) == print_

    zeros = {"w": torch.zeros(4)}
    different = [
        zeros,
        {"w": -torch.zeros(4)},
        {"v": torch.zeros(4)},
        {"w": torch.zeros(2, 2)},
        {"w": torch.zeros(4, dtype=torch.int32)},
        {"w": torch.zeros(4), "v": torch.zeros(0)},
    ]
    assert len({fingerprint(weights) for weights in different}) == len(different)


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert fingerprint(model) == fingerprint({"0.weight": model[0].weight})
