import math

import pytest
import torch
from torch import Tensor, nn

from dareu.masks import random_mask, select_top, selection


def first_by_sorting(scores: dict[str, Tensor], count: int) -> set[tuple[str, int]]:
    entries = [
        (-abs(value), order, position, name)
        for order, (name, score) in enumerate(scores.items())
        for position, value in enumerate(score.reshape(-1).tolist())
    ]
    return {(name, position) for _, _, position, name in sorted(entries)[:count]}


def selected(masks: dict[str, Tensor]) -> set[tuple[str, int]]:
    return {(name, int(position)) for name, mask in masks.items() for position in mask.reshape(-1).nonzero().squeeze(1)}


def hard_scores() -> dict[str, Tensor]:
    """Many scales, ties of both signs, zeros of both signs and denormal numbers."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(7, 11, generator=generator) * 10 ** torch.randint(-30, 30, (7, 11), generator=generator)
    ties = torch.randint(-2, 3, (40,), generator=generator).float()
    return {
        "b": wide.t(),  # not contiguous
        "a": ties,
        "zeros": torch.tensor([0.0, -0.0, 1e-42, -1e-45]),
        "scalar": torch.tensor(-2.0),
        "empty": torch.zeros(0, 3),
    }


@pytest.mark.parametrize("chunk", [1 << 22, 5])
def test_the_largest_are_selected_exactly(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(selection, "_CHUNK", chunk)
    scores = hard_scores()
    total = sum(score.numel() for score in scores.values())
    for count in range(1, total + 1):
        masks = select_top(scores, (count - 0.5) / total)
        assert selected(masks) == first_by_sorting(scores, count)
        assert {name: mask.shape for name, mask in masks.items()} == {n: s.shape for n, s in scores.items()}
        assert all(mask.dtype == torch.bool for mask in masks.values())


def test_ties_go_to_the_earlier_position() -> None:
    masks = select_top({"z": torch.full((2, 3), -1.0), "a": torch.ones(4)}, 0.7)
    assert masks["z"].all()
    assert masks["a"].tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("density", "total", "count"),
    [
        (0.07, 100, 7),
        (0.1, 30, 3),
        (0.3, 10, 3),
        (1 / 3, 3, 1),
        (5 / 6, 6, 5),
        (1e-30, 5, 1),
        (1e-9, 5, 1),
        (1, 5, 5),
    ],
)
def test_the_count_is_the_ceiling_of_the_share(density: float, total: int, count: int) -> None:
    assert selected(select_top({"w": torch.arange(total).float()}, density)) == {
        ("w", position) for position in range(total - count, total)
    }
    assert int(random_mask({"w": (total,)}, density, seed=0)["w"].sum()) == count


@pytest.mark.parametrize("density", [0, -0.1, 1.001, math.nan, math.inf])
def test_a_density_out_of_range_is_refused(density: float) -> None:
    with pytest.raises(ValueError, match="density is"):
        select_top({"w": torch.ones(3)}, density)
    with pytest.raises(ValueError, match="density is"):
        random_mask({"w": (3,)}, density, seed=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_names_the_parameter(value: float) -> None:
    with pytest.raises(ValueError, match="'bad' are not all finite"):
        select_top({"good": torch.ones(3), "bad": torch.tensor([1.0, value])}, 0.5)


def test_nothing_to_select_from_is_refused() -> None:
    with pytest.raises(ValueError, match="no weights"):
        select_top({}, 0.5)
    with pytest.raises(ValueError, match="no weights"):
        random_mask({"empty": (0, 3)}, 0.5, seed=0)


def test_a_scope_takes_the_share_of_each_group() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embed.weight": (7, 3),
        "layers.0.q": (4, 5),
        "layers.0.mlp.experts.1.up": (3, 3),
        "layers.1.q": (4, 5),
        "layers.10.q": (1,),
        "norm": (),
        "empty": (0,),
    }
    scores = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for scope, groups in {
        "tensor": [[name] for name in shapes],
        "layer": [["layers.0.q", "layers.0.mlp.experts.1.up"], *([n] for n in shapes if not n.startswith("layers.0."))],
        "global": [list(shapes)],
    }.items():
        masks = select_top(scores, 0.3, scope)
        assert list(masks) == list(shapes)
        for names in groups:
            group = {name: scores[name] for name in names}
            count = math.ceil(0.3 * sum(score.numel() for score in group.values()))
            assert selected({name: masks[name] for name in names}) == first_by_sorting(group, count)


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="scope is 'row'; give one of global, layer, tensor"):
        select_top({"w": torch.ones(3)}, 0.5, "row")


def test_random_masks_have_the_exact_count_and_depend_on_the_seed_alone() -> None:
    model = nn.Linear(30, 40)
    state = torch.get_rng_state()
    masks = random_mask(model, 0.3, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(int(mask.sum()) for mask in masks.values()) == 372  # 0.3 of 40 * 30 + 40
    torch.manual_seed(1)
    again = random_mask({"weight": (40, 30), "bias": (40,)}, 0.3, seed=5)
    other = random_mask(model, 0.3, seed=6)
    assert selected(again) == selected(masks) != selected(other)


def test_random_masks_select_every_entry_equally_often() -> None:
    shapes = {"a": (3,), "b": (2, 4), "c": (9,)}
    draws = 1000
    hits = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for seed in range(draws):
        for name, mask in random_mask(shapes, 0.4, seed).items():
            hits[name] += mask
    share = 8 / 20
    five_sigma = 5 * math.sqrt(share * (1 - share) / draws)
    for name, hit in hits.items():
        assert (hit / draws - share).abs().max() < five_sigma, name
