"""Merged task vectors equal what ten lines of NumPy make of the definition."""

import doctest
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dareu.deltas import task_vectors
from dareu.deltas.task_vectors import TaskVector, merge_vectors
from dareu.masks import selection

Vector = dict[str, Tensor]
SHAPES = {"b": (6, 7), "a": (5,), "scalar": (), "empty": (0, 3), "c": (3, 4, 2)}


def drawn(seed: int, *, coarse: bool = False) -> Vector:
    """A task vector; a coarse one has many zeros, ties within it, and sums with others that cancel."""
    generator = torch.Generator().manual_seed(seed)
    if coarse:
        return {n: torch.randint(-2, 3, shape, generator=generator).float() for n, shape in SHAPES.items()}
    return {n: torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}


def flat(vector: Vector) -> np.ndarray:
    return torch.cat([tensor.reshape(-1) for tensor in vector.values()]).numpy().astype(np.float64)


def ties(vectors: list[Vector], density: float) -> np.ndarray:
    rows = np.stack([flat(vector) for vector in vectors])
    for row in rows:
        row[np.argsort(-abs(row), kind="stable")[math.ceil(density * len(row)) :]] = 0
    sign = np.sign(rows.sum(0))
    sign[sign == 0] = np.sign(sign.sum())
    agrees = (np.sign(rows) == sign) & (rows != 0)
    return np.where(agrees, rows, 0).sum(0) / np.maximum(agrees.sum(0), 1)


@pytest.mark.parametrize("chunk", [1 << 20, 5])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize(("number", "coarse"), [(1, True), (2, True), (3, True), (4, False), (5, True)])
def test_ties_is_its_definition(
    number: int, coarse: bool, density: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (task_vectors, selection):
        monkeypatch.setattr(module, "_CHUNK", chunk)
    for seed in range(5):
        vectors = [drawn(100 * seed + k, coarse=coarse) for k in range(number)]
        merged = dict(merge_vectors(vectors, "ties", density=density))
        assert {name: tensor.shape for name, tensor in merged.items()} == SHAPES
        np.testing.assert_allclose(flat(merged), ties(vectors, density), rtol=1e-7)


def test_the_cases_above_hold_ties_that_the_majority_decides() -> None:
    rows = np.stack([flat(drawn(k, coarse=True)) for k in range(2)])
    cancels = (rows.sum(0) == 0) & (rows[0] != 0)
    assert cancels.any() and np.sign(rows.sum(0)).sum() != 0
    merged = flat(dict(merge_vectors([drawn(k, coarse=True) for k in range(2)], "ties", density=1.0)))
    assert (np.sign(merged[cancels]) == np.sign(np.sign(rows.sum(0)).sum())).all()


def test_nothing_is_elected_where_there_is_no_majority() -> None:
    first, second = torch.tensor([1.0, 5.0, -5.0]), torch.tensor([-1.0, 0.0, 0.0])
    merged = dict(merge_vectors([{"w": first}, {"w": second}], "ties", density=1.0))
    assert merged["w"].tolist() == [0, 5, -5]


def test_the_worked_case_of_the_docstring() -> None:
    assert merge_vectors.__doc__ is not None
    (example,) = doctest.DocTestFinder(recurse=False).find(merge_vectors, "merge_vectors", globs=vars(task_vectors))
    assert len(example.examples) == 3
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0


@pytest.mark.parametrize("method", task_vectors.MERGE_METHODS)
def test_the_order_of_the_vectors_changes_no_bit(method: task_vectors.MergeMethod) -> None:
    wide = (1e20, 1.0, -1e20, 3.0)  # float64 makes 3, 4 or 0 of their sum
    vectors = [{"wide": torch.full((40,), wide[k]), **drawn(k)} for k in range(4)]
    usual = dict(merge_vectors(vectors, method, density=0.9))
    for order in ((3, 2, 1, 0), (0, 2, 1, 3), (1, 3, 0, 2)):
        other = dict(merge_vectors([vectors[k] for k in order], method, density=0.9))
        assert all(torch.equal(usual[name].view(torch.int32), other[name].view(torch.int32)) for name in usual)


def test_task_arithmetic_is_the_sum() -> None:
    vectors = [drawn(k) for k in range(3)]
    merged = dict(merge_vectors(vectors, "task_arithmetic", density=0.01))
    np.testing.assert_allclose(flat(merged), sum(flat(vector) for vector in vectors), rtol=1e-7)


def test_dare_keeps_a_share_at_random_and_makes_up_for_the_rest() -> None:
    vector = {"w": torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 1, "v": torch.ones(1000)}
    merged = dict(merge_vectors([vector], "dare_ties", density=0.3))
    kept = torch.cat([merged["w"] != 0, merged["v"] != 0])
    assert int(kept.sum()) == 600
    assert 200 < int((merged["v"] != 0).sum()) < 400  # 24 standard deviations are 245
    values = flat(vector) / 0.3 * kept.numpy()
    np.testing.assert_allclose(flat(merged), values, rtol=1e-6)


def test_dare_has_a_seed_and_a_generator_of_its_own() -> None:
    vectors = [drawn(k) for k in range(2)]

    def merged(seed: int) -> np.ndarray:
        return flat(dict(merge_vectors(vectors, "dare_ties", density=0.5, seed=seed)))

    torch.manual_seed(1)
    state, first = torch.get_rng_state(), merged(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.testing.assert_array_equal(merged(0), first)
    assert (merged(1) != first).any()


def test_dare_keeps_other_entries_of_each_vector() -> None:
    one = {"w": torch.ones(1000)}
    merged = dict(merge_vectors([one, {"w": 2 * one["w"]}], "dare_ties", density=0.5))["w"]
    # Kept in both, in either, in none: 1.5, 1 or 2, and 0, each divided by the density
    assert set(merged.tolist()) == {3.0, 2.0, 4.0, 0.0}


def test_a_task_vector_is_the_difference_in_float32() -> None:
    base, trained = {"w": torch.ones(3, dtype=torch.bfloat16)}, {"w": torch.tensor([1, 1.5, -2]).bfloat16()}
    vector = TaskVector(base, trained, "part")
    assert list(vector) == ["w"] and len(vector) == 1
    assert vector["w"].dtype == torch.float32 and vector["w"].tolist() == [0, 0.5, -3]
    assert base["w"].tolist() == [1, 1, 1] and trained["w"].tolist() == [1, 1.5, -2]
    with pytest.raises(ValueError, match=r"^part or its base has weights in 'w' that are not finite"):
        TaskVector(base, {"w": torch.tensor([0, math.nan, 0])}, "part")["w"]


def test_float32_operands_are_left_alone() -> None:
    base, trained = {"w": torch.ones(2)}, {"w": torch.full((2,), 3.0)}
    assert TaskVector(base, trained, "part")["w"].tolist() == [2, 2]
    assert trained["w"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"method": "mean"}, "The merge method is 'mean'; give one of ties, dare_ties, task_arithmetic"),
        ({"density": 0.0}, r"The merge density is 0\.0"),
        ({"density": 1.5}, r"The merge density is 1\.5"),
        ({"vectors": []}, "nothing to merge"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        merge_vectors(**({"vectors": [drawn(0)]} | options))  # type: ignore[arg-type]
