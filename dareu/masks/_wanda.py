"""Wanda: magnitudes of weights times the norms of their inputs (Sun et al., arXiv 2306.11695)."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from dareu.masks.gradients import Batch
from dareu.models.forward import evaluation_mode
from dareu.weights.sharding import several_processes

_CHUNK = 1 << 20
"""Entries sorted together; bounds the memory that ranks take beside their result."""


def wanda_scores(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], forget_batches: Iterable[Batch]
) -> dict[str, Tensor]:
    r"""Scores weights by magnitude times the norm of their inputs, ranked within each output (Wanda).

    A weight of a linear layer (`torch.nn.Linear`, or transformers' transposed `Conv1D`) counts
    :math:`|\theta_{ij}| \lVert x_j \rVert_2`, with the norm of input feature j over all tokens of the records, padding
    left out. Wanda compares weights within an output's row only, so the score of an entry is its place there, from
    1/n for the least to 1 for the greatest of the n; the earlier of equal ones is the greater. Ranked over all
    tensors, every row then gives the same share, rows of the first tensors one entry more where the share is no whole
    number. Every other parameter (embeddings, norms, biases, experts stacked in one tensor) is ranked by magnitude
    in the same way, along its last dimension. A weight that an embedding and a linear head share counts as the head's.

    Args:
        model: The model; run in evaluation mode, a record at a time, and left as it was.
        parameters: Which of its parameters to score, by name.
        forget_batches: Records to forget as `wagle_scores` takes them; prompts count too, labels do not.

    Returns:
        Parameter name to float32 scores in (0, 1] of the parameter's shape, on the parameter's device.

    Raises:
        ValueError: If there is no batch, an input or a weight is not finite.
    """
    from transformers.pytorch_utils import Conv1D

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
            for batch in forget_batches:
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
