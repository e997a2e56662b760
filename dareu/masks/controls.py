"""Scores that a mask by WAGLE is compared with; Wanda stands in a file of its own."""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from dareu.masks._wagle import wagle_scores
from dareu.masks.gradients import AccumulateOn, Batch, mean_gradients
from dareu.masks.weight_scores import WeightScores

_INFINITY_BITS = 0x7F800000
"""Smaller bit patterns, read as float32, are the finite numbers from zero on, in order."""


def random_scores(parameters: Mapping[str, nn.Parameter], seed: int) -> "RandomScores":
    """Scores each weight by a random number of its own; see `RandomScores`."""
    return RandomScores({name: parameter.shape for name, parameter in parameters.items()}, seed)


def magnitude_scores(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Gives the weights themselves, where they stand and in their own dtype, so that they rank by magnitude."""
    return {name: parameter.detach() for name, parameter in parameters.items()}


def snip_scores(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    forget_batches: Iterable[Batch],
    accumulate_on: AccumulateOn,
    folder: str | os.PathLike[str] | None,
) -> WeightScores:
    r"""Scores by :math:`\theta g_f` (SNIP, Lee et al., arXiv 1810.02340): `wagle_scores` at gamma = inf."""
    return wagle_scores(model, parameters, forget_batches, (), math.inf, accumulate_on, folder)


def gradient_product_scores(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    forget_batches: Iterable[Batch],
    retain_batches: Iterable[Batch],
    accumulate_on: AccumulateOn,
    folder: str | os.PathLike[str] | None,
) -> WeightScores:
    r"""Scores by :math:`-g_r g_f`: `wagle_scores` at gamma = 0."""
    return wagle_scores(model, parameters, forget_batches, retain_batches, 0.0, accumulate_on, folder)


def gradient_scores(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    forget_batches: Iterable[Batch],
    accumulate_on: AccumulateOn,
    folder: str | os.PathLike[str] | None,
) -> dict[str, Tensor]:
    """Scores by the mean gradient of the records to forget; see `mean_gradients`."""
    sides = {"forget": forget_batches}
    return mean_gradients(model, parameters, sides, accumulate_on=accumulate_on, folder=folder)[0]


class RandomScores(Mapping[str, Tensor]):
    """Parameter name to random float32 scores, drawn anew, and alike, each time they are read.

    All finite float32 numbers from zero on are equally likely, so that ties are rare (one chance in 2**31 a pair).

    Args:
        shapes: Parameter name to shape.
        seed: With the parameter's name it seeds a generator of the parameter's own; no global random state is read.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], seed: int) -> None:
        self._shapes = {name: torch.Size(shape) for name, shape in shapes.items()}
        self._seed = seed

    def __getitem__(self, name: str) -> Tensor:
        digest = hashlib.blake2b(f"{self._seed} {name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
        bits = torch.randint(0, _INFINITY_BITS, self._shapes[name], generator=generator, dtype=torch.int32)
        return bits.view(torch.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
