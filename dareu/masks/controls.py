"""Scores that a mask by WAGLE is compared with, all under one interface."""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch import distributed as dist

from dareu.masks.gradients import AccumulateOn, Batch, check_floating_point, mean_gradients
from dareu.masks.patterns import chosen_parameters
from dareu.masks.scores import WeightScores, wagle_scores
from dareu.models.forward import evaluation_mode
from dareu.weights.sharding import mesh_of, several_processes

Score = Literal["wagle", "random", "magnitude", "wanda", "snip", "gradient_product", "gradient"]
SCORES: tuple[str, ...] = get_args(Score)

_CHUNK = 1 << 20
"""Entries sorted together; bounds the memory that ranks take beside their result."""

_INFINITY_BITS = 0x7F800000
"""Smaller bit patterns, read as float32, are the finite numbers from zero on, in order."""


def score_weights(
    model: nn.Module,
    score: Score,
    forget_batches: Iterable[Batch] = (),
    retain_batches: Iterable[Batch] = (),
    *,
    gamma: float | Literal["auto"] = "auto",
    seed: int = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    accumulate_on: AccumulateOn = "memory",
    folder: str | os.PathLike[str] | None = None,
) -> WeightScores:
    r"""Score the weights of a model by WAGLE or by one of its controls.

    ==================  =============================================================  ======================
    score               of a weight                                                    needs
    ==================  =============================================================  ======================
    wagle               `wagle_scores`                                                 forget, retain, gamma
    random              a random number of its own                                     seed
    magnitude           :math:`|\theta|`                                               nothing
    wanda               place of :math:`|\theta_{ij}| \lVert x_j \rVert` in its row    forget
    snip                :math:`|\theta g_f|`, WAGLE at gamma = inf                     forget
    gradient_product    :math:`|g_r g_f|`, WAGLE at gamma = 0                          forget, retain
    gradient            :math:`|g_f|`                                                  forget
    ==================  =============================================================  ======================

    Scores carry their signs; selection ranks absolute values. Random and magnitude take no memory: the numbers are
    drawn when they are read, and the weights are read where they stand (so score before training). SNIP is by Lee et
    al. (arXiv 1810.02340), Wanda by Sun et al. (arXiv 2306.11695): see `wanda_scores` for the weights it leaves open.
    Several processes score together as `wagle_scores` says, but for Wanda, which takes whole weights.

    Args:
        model: The model, as `wagle_scores` takes it.
        score: A name of the table.
        forget_batches: Batches of the records to forget, as `wagle_scores` takes them.
        retain_batches: Batches of the records to retain.
        gamma: Of ``"wagle"`` alone.
        seed: Of ``"random"`` alone; a weight's number depends on it and on the parameter's name and shape only.
        include: Patterns of the modules and parameters to score, as in `chosen_parameters`; default: all.
        exclude: Patterns of those to leave out.
        accumulate_on: Where sums of gradients stand, as in `wagle_scores`.
        folder: Folder of the sums of ``"disk"``.

    Returns:
        Parameter name to scores of the parameter's shape, named and in the model's order.

    Raises:
        ValueError: If ``score`` is unknown, batches that it needs are missing, or as `wagle_scores` says.
    """
    if score not in SCORES:
        raise ValueError(f"score is {score!r}; give one of {', '.join(SCORES)}.")
    common: dict[str, Any] = {"accumulate_on": accumulate_on, "folder": folder}
    patterns: dict[str, Any] = {"include": include, "exclude": exclude}
    if score == "wagle":
        return wagle_scores(model, forget_batches, retain_batches, gamma=gamma, **patterns, **common)
    if score in ("snip", "gradient_product"):
        limit = math.inf if score == "snip" else 0.0
        scores = wagle_scores(model, forget_batches, retain_batches, gamma=limit, **patterns, **common)
        return replace(scores, score=score)
    parameters = chosen_parameters(model, include, exclude)
    check_floating_point(parameters)
    if score == "random":
        return WeightScores(RandomScores({name: p.shape for name, p in parameters.items()}, seed), score)
    if score == "magnitude":
        return WeightScores({name: parameter.detach() for name, parameter in parameters.items()}, score)
    if score == "wanda":
        return WeightScores(wanda_scores(model, parameters, forget_batches), score)
    (gradients,) = mean_gradients(model, parameters, {"forget": forget_batches}, **common)
    return WeightScores(gradients, score)


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


def wanda_scores(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], batches: Iterable[Batch]
) -> dict[str, Tensor]:
    r"""Score weights by magnitude times the norm of their inputs, ranked within each output (Wanda).

    A weight of a linear layer (`torch.nn.Linear`, or transformers' transposed ``Conv1D``) counts
    :math:`|\theta_{ij}| \lVert x_j \rVert_2`, with the norm of input feature j over all tokens of the records, padding
    left out. Wanda compares weights within an output's row only, so the score of an entry is its place there, from
    1/n for the least to 1 for the greatest of the n; the earlier of equal ones is the greater. Ranked over all
    tensors, every row then gives the same share, rows of the first tensors one entry more where the share is no whole
    number. Every other parameter (embeddings, norms, biases, experts stacked in one tensor) is ranked by magnitude
    in the same way, along its last dimension. A weight that an embedding and a linear head share counts as the head's.

    Args:
        model: The model; run in evaluation mode, a record at a time, and left as it was.
        parameters: Which of its parameters to score, by name.
        batches: Records as `wagle_scores` takes them; prompts count too, labels do not.

    Returns:
        Parameter name to float32 scores in (0, 1] of the parameter's shape, on the parameter's device.

    Raises:
        ValueError: If there is no batch, an input or a weight is not finite, or the weights are sharded.
    """
    from transformers.pytorch_utils import Conv1D

    if mesh_of(parameters) is not None:
        raise ValueError("Wanda compares whole rows of whole weights; score them before the model is sharded.")
    names = {id(parameter): name for name, parameter in parameters.items()}
    squares: dict[str, Tensor] = {}
    transposed: set[str] = set()

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        name = names[id(module.weight)]
        features = inputs[0].reshape(-1, inputs[0].shape[-1])
        # In float64, so that neither the order nor the number of tokens matters.
        squares[name] = squares.get(name, 0) + features.double().square().sum(dim=0)

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) in names:
            hooks.append(module.register_forward_pre_hook(watch))
            if isinstance(module, Conv1D):
                transposed.add(names[id(module.weight)])
    records = 0
    try:
        with evaluation_mode(model), torch.no_grad():
            for batch in batches:
                for ids, attended in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                    row = ids[attended.bool()].unsqueeze(0).to(next(model.parameters()).device)
                    model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False)
                    records += 1
    finally:
        for hook in hooks:
            hook.remove()
    if several_processes():
        records, squares = _of_all_processes(records, squares)
    if not records:
        raise ValueError("There is no forget batch to score the weights with; give at least one forget record.")

    scores = {}
    for name, parameter in parameters.items():
        weight = parameter.detach().T if name in transposed else parameter.detach()
        rows = weight.reshape(-1, weight.shape[-1] if weight.dim() else 1)
        norms = squares[name].sqrt().float().to(rows.device) if name in squares else None
        ranks = _row_ranks(rows, norms, name).view(weight.shape)
        scores[name] = ranks.T.contiguous() if name in transposed else ranks
    return scores


def _of_all_processes(records: int, squares: Mapping[str, Tensor]) -> tuple[int, dict[str, Tensor]]:
    """The sums over all processes, each of which may have seen other layers, on the CPU."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (records, {name: values.cpu() for name, values in squares.items()}))
    total: dict[str, Tensor] = {}
    for _, part in everyone:
        for name, values in part.items():
            total[name] = total.get(name, 0) + values
    return sum(count for count, _ in everyone), total


def _row_ranks(rows: Tensor, norms: Tensor | None, name: str) -> Tensor:
    """Place of each entry of (R, n) within its row by magnitude times the norm, from 1/n to 1, in float32."""
    width = rows.shape[-1]
    places = torch.arange(width, 0, -1, device=rows.device) / width
    ranks = torch.empty_like(rows, dtype=torch.float32)
    step = max(1, _CHUNK // max(1, width))
    for start in range(0, len(rows), step):
        values = rows[start : start + step].float().abs()
        if norms is not None:
            values = values * norms
        if not values.isfinite().all():
            raise ValueError(
                f"Parameter {name!r} or its inputs are not finite; check the model's weights, or load it in float32."
            )
        order = values.argsort(dim=-1, descending=True, stable=True)
        ranks[start : start + step].scatter_(-1, order, places.expand_as(values))
    return ranks
