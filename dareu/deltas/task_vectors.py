"""What training added to weights, and how several such task vectors become one: TIES, DARE-TIES, task arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dareu.masks import random_mask, select_top
from dareu.weights import fingerprint

#: How task vectors are added: trimmed to agreeing signs, dropped at random and rescaled, or as they are.
MergeMethod = Literal["ties", "dare_ties", "task_arithmetic"]
#: The names of `MergeMethod`.
MERGE_METHODS: tuple[str, ...] = get_args(MergeMethod)

#: Eight mask entries a byte.
Bits = NDArray[np.uint8]

#: Entries looked at together; bounds the memory that float64 sums take.
_CHUNK = 1 << 20


class TaskVector(Mapping[str, Tensor]):
    """Parameter name to what training added to it, in float32, computed when it is asked for.

    Args:
        base: Weights before training, by name.
        trained: Weights after it.
        label: What to call the trained model in errors.

    Raises:
        ValueError: On reading a tensor with an entry that is not finite.
    """

    def __init__(self, base: Mapping[str, Tensor], trained: Mapping[str, Tensor], label: str) -> None:
        self._base, self._trained, self._label = base, trained, label

    def __getitem__(self, name: str) -> Tensor:
        difference = self._trained[name].float() - self._base[name].float()
        if not torch.isfinite(difference).all():
            raise ValueError(f"{self._label} or its base has weights in {name!r} that are not finite; train it again.")
        return difference

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def merge_vectors(
    vectors: Sequence[Mapping[str, Tensor]], method: MergeMethod = "ties", *, density: float = 0.2, seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    r"""Merges task vectors into one.

    `"ties"` (Yadav et al., NeurIPS 2023, arXiv 2306.01708), entry by entry i over the vectors k:

    .. math::
        \hat\tau_k = \text{the } \lceil d n \rceil \text{ entries of } \tau_k \text{ largest in } |\cdot|
        \text{, 0 elsewhere} \qquad
        s_i = \operatorname{sgn} \sum_k \hat\tau_{k,i} \qquad
        m_i = \frac{1}{|A_i|} \sum_{k \in A_i} \hat\tau_{k,i}, \quad
        A_i = \{k : \operatorname{sgn} \hat\tau_{k,i} = s_i \ne 0\}

    All n entries of a vector compete, over its tensors; of equal ones the earlier is kept. Where the sum is 0, s is the
    majority sign: that of :math:`\sum_i s_i`; where there is none either, or nothing agrees, m is 0. So an entry that
    a single vector moved keeps that vector's value in full, however many vectors there are: the mean is over those
    that agree, neither over all nor by weights.

    `"dare_ties"` (Yu et al., ICML 2024, arXiv 2311.03099) keeps :math:`\lceil d n \rceil` entries at random,
    divides them by d, and goes on as above. `"task_arithmetic"` (Ilharco et al., ICLR 2023, arXiv 2212.04089) is the
    sum :math:`\sum_k \tau_k`, with nothing trimmed.

    The order of the vectors changes no bit of the result. In memory are the vectors' tensors of one name, what is kept
    of each vector as a bit an entry, and, while it is chosen, a byte an entry of one vector. Sums are in float64. TIES
    reads each vector five times, a tensor at a time.

    Two vectors of four entries at density 1/2: the first keeps 3 and -2, the second 1 and 2. The second entry then
    cancels, so it takes the majority sign of the others, +:

    >>> first, second = torch.tensor([3.0, -2.0, 1.0, 0.0]), torch.tensor([1.0, 2.0, 0.0, -0.5])
    >>> dict(merge_vectors([{"w": first}, {"w": second}], "ties", density=0.5))
    {'w': tensor([2., 2., 0., 0.])}
    >>> dict(merge_vectors([{"w": first}, {"w": second}], "task_arithmetic"))
    {'w': tensor([ 4.0000,  0.0000,  1.0000, -0.5000])}

    Args:
        vectors: Parameter name to a floating-point tensor of any shape on the CPU, the same names and shapes in each.
        method: A name of `MERGE_METHODS`.
        density: d, the share of each vector that is kept, in (0, 1]; not of `"task_arithmetic"`.
        seed: Of `"dare_ties"` alone: with a vector's content it seeds the draw of what it keeps; no global random
            state is read or moved.

    Yields:
        Parameter name and the merged float32 tensor, in the order of the first vector.

    Raises:
        ValueError: If the method is unknown, the density out of range, there is no vector, or an entry is not finite.
    """
    if method not in MERGE_METHODS:
        raise ValueError(f"The merge method is {method!r}; give one of {', '.join(MERGE_METHODS)}.")
    if not 0 < density <= 1:
        raise ValueError(f"The merge density is {density}; give the share of each task vector to keep, in (0, 1].")
    if not vectors:
        raise ValueError("There is nothing to merge; give at least one trained model.")
    assert all(list(vector) == list(vectors[0]) for vector in vectors), "task vectors of one model"
    if method == "task_arithmetic":
        return _merged((name, [vector[name] for vector in vectors]) for name in vectors[0])
    if method == "ties":
        trimmed = _Trimmed(vectors, [_packed(select_top(vector, density)) for vector in vectors], 1.0)
    else:
        drawn = (random_mask(_shapes(vector), density, _own_seed(vector, seed)) for vector in vectors)
        trimmed = _Trimmed(vectors, [_packed(masks) for masks in drawn], density)
    return _merged(trimmed, _majority(trimmed))


class _Trimmed(Iterable[tuple[str, list[Tensor]]]):
    """Names and each vector's tensor of that name with all but the kept entries at 0, divided by a number."""

    def __init__(
        self, vectors: Sequence[Mapping[str, Tensor]], kept: Sequence[Mapping[str, Bits]], divisor: float
    ) -> None:
        self._vectors, self._kept, self._divisor = vectors, kept, divisor

    def __iter__(self) -> Iterator[tuple[str, list[Tensor]]]:
        for name in self._vectors[0]:
            rows = []
            for vector, packed in zip(self._vectors, self._kept, strict=True):
                values = vector[name].float() / self._divisor
                kept = np.unpackbits(packed[name], count=values.numel()).astype(bool)
                rows.append(torch.where(torch.from_numpy(kept).view(values.shape), values, 0.0))
            yield name, rows


def _packed(masks: Mapping[str, Tensor]) -> dict[str, Bits]:
    """Masks with eight entries a byte, for all vectors' are kept at a time."""
    return {name: np.packbits(mask.reshape(-1).numpy()) for name, mask in masks.items()}


def _merged(tensors: Iterable[tuple[str, list[Tensor]]], majority: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """The sum over the vectors or, given a majority sign, the mean over those that agree with the elected one."""
    for name, rows in tensors:
        merged = torch.empty(rows[0].shape, dtype=torch.float32)
        flat = merged.view(-1)
        for start, values in _chunks(rows):
            total = values.sum(dim=0)
            if majority is not None:
                elected = total.sign()
                elected[elected == 0] = majority
                agrees = (values.sign() == elected) & (values != 0)
                total = torch.where(agrees, values, 0.0).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
            flat[start : start + _CHUNK] = total
        yield name, merged


def _majority(tensors: Iterable[tuple[str, list[Tensor]]]) -> int:
    """The sign that most entries' sums over the vectors have: 1, -1, or 0 where there are as many of both."""
    balance = sum(int(values.sum(dim=0).sign().sum()) for _, rows in tensors for _, values in _chunks(rows))
    return (balance > 0) - (balance < 0)


def _chunks(rows: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Where a piece starts, and its float64 values (K, n), sorted over K, so that no sum depends on the order."""
    flat = [row.reshape(-1) for row in rows]
    for start in range(0, len(flat[0]), _CHUNK):
        yield start, torch.stack([row[start : start + _CHUNK].double() for row in flat]).sort(dim=0).values


def _shapes(vector: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: vector[name].shape for name in vector}


def _own_seed(vector: Mapping[str, Tensor], seed: int) -> int:
    """A seed by the vector's content, so that each vector keeps other entries and their order is nothing."""
    digest = hashlib.blake2b(f"{seed} {fingerprint(vector)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)
