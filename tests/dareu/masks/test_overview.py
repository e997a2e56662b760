import math
import sys
from pathlib import Path

import pytest
import torch

from dareu.masks.overview import OUTSIDE, density_grid, overlap_grid, save_heatmap


def mask(*counts: int) -> dict[str, torch.Tensor]:
    """Masks of ten entries each, of which the first `count` are selected."""
    names = (
        "model.embed_tokens.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.0.mlp.experts.1.up_proj.weight",
        "model.layers.0.attn.q_proj.weight",
        "model.layers.0.attn.q_proj.bias",
        "model.layers.10.attn.q_proj.weight",
        "model.layers.2.attn.q_proj.weight",
        "lm_head.weight",
    )
    return {name: torch.arange(10) < count for name, count in zip(names, counts, strict=True)}


def test_density_by_layer_and_kind_of_module() -> None:
    grid = density_grid(mask(1, 2, 4, 5, 10, 0, 3, 9))
    assert grid.layers == [0, 2, 10]
    assert grid.kinds == ["mlp.experts.*.up_proj", "attn.q_proj"]
    assert grid.outside == ["model.embed_tokens", "lm_head"]
    assert grid.share([0], ["mlp.experts.*.up_proj"]) == 6 / 20  # both experts
    assert grid.share([0], ["attn.q_proj"]) == 15 / 20  # weight and bias
    assert math.isnan(grid.share([2], ["mlp.experts.*.up_proj"]))
    assert grid.share([0]) == 21 / 40
    assert grid.share([2, 10], ["attn.q_proj"]) == 3 / 20
    assert grid.share([OUTSIDE], ["lm_head"]) == 9 / 10
    assert grid.share() == 34 / 80


def test_jaccard_overlap_of_two_masks() -> None:
    a, b = mask(1, 2, 4, 5, 10, 0, 3, 9), mask(2, 2, 4, 0, 0, 0, 6, 9)
    grid = overlap_grid(a, b)
    assert grid.share() == (1 + 2 + 4 + 0 + 0 + 0 + 3 + 9) / (2 + 2 + 4 + 5 + 10 + 0 + 6 + 9)
    assert grid.share([0], ["attn.q_proj"]) == 0
    assert math.isnan(grid.share([10]))  # neither selects anything there
    assert overlap_grid(b, a).counts == grid.counts
    assert overlap_grid(a, a).share() == 1


def test_masks_of_different_models_are_not_compared() -> None:
    a = {"w": torch.ones(2, dtype=torch.bool)}
    with pytest.raises(ValueError, match="Only one of the masks has parameter 'v'"):
        overlap_grid(a, a | {"v": a["w"]})
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1, 2\)"):
        overlap_grid(a, {"w": a["w"][None]})


@pytest.mark.parametrize("names", [None, ["w", "v"], ["layers.0.a", "layers.1.a"]])
def test_a_heatmap_is_drawn(tmp_path: Path, names: list[str] | None) -> None:
    image = pytest.importorskip("matplotlib.image", reason="pictures need dareu[plots]")
    masks = mask(1, 2, 4, 5, 10, 0, 3, 9)
    if names is not None:
        masks = dict(zip(names, masks.values(), strict=False))
    save_heatmap(density_grid(masks), tmp_path / "deep" / "mask.png")
    picture = image.imread(tmp_path / "deep" / "mask.png")
    assert picture.shape[0] > 100 and picture.shape[1] > 100
    assert len({tuple(pixel) for pixel in picture[::4, ::4].reshape(-1, 4).tolist()}) > 4


def test_no_picture_without_matplotlib_or_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = density_grid(mask(1, 2, 4, 5, 10, 0, 3, 9))
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        save_heatmap(grid, tmp_path / "mask.jpg")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"missing; pip install 'dareu\[plots\]'"):
        save_heatmap(grid, tmp_path / "mask.png")
    assert not list(tmp_path.iterdir())
