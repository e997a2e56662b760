"""WAGLE weight scores: how much each weight matters to the forget records against the retained ones."""

import math
import os
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from dareu.masks.gradients import AccumulateOn, Batch, mean_gradients
from dareu.masks.weight_scores import WeightScores
from dareu.weights.entries import local_part
from dareu.weights.sharding import first_not_finite, gathered, mesh_of

_CHUNK = 1 << 20
"""Entries looked at together where two tensors are multiplied without a copy of either's size."""


def wagle_scores(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    forget_batches: Iterable[Batch],
    retain_batches: Iterable[Batch],
    gamma: float | Literal["auto"],
    accumulate_on: AccumulateOn,
    folder: str | os.PathLike[str] | None,
) -> WeightScores:
    r"""Scores every weight by WAGLE's attribution (Jia et al., NeurIPS 2024, arXiv 2410.17509).

    .. math:: S_i = \theta_i g_{f,i} - \tfrac{1}{\gamma} g_{r,i} g_{f,i}

    The gradients `g_f` and `g_r` are means over records of the gradient of the record's mean loss over
    its completion tokens, so scores do not depend on how records are batched (1e-5 in float32). They are
    summed in float32 whatever the model's dtype is. The paper sets gamma against **sums** over the samples:
    its values (1e-6 for TOFU) do not carry over to these means.

    Every parameter is scored once, tied weights under their first name, and also those that do not require a
    gradient. Memory beside the model and a backward pass: two float32 copies of the parameters' size, one where
    gamma is infinite, or the same on disk; and the largest single gradient, never all of them.

    Where torch.distributed connects several processes, all of them must call this, each with a share of the batches
    (a process may have none), and get the same scores. Weights that `fully_shard` has sharded have sharded scores:
    each process keeps those of its own part.

    Args:
        model: A causal language model called with `input_ids`, `attention_mask` and `use_cache=False`
            (and `position_ids` for left-padded batches) that returns an object with `logits` (B, T, V).
            It is run in evaluation mode and left as it was, without gradients.
        parameters: Which of its parameters to score, by name.
        forget_batches: Batches of the records to forget, each with int64 tensors `input_ids`,
            `attention_mask` and `labels` of shape (B, T); labels are -100 outside the completion. Read once.
        retain_batches: The same for records to retain; not read where gamma is infinite.
        gamma: What stands for the Hessian of the retain loss, in [0, inf]. The limits are exact in ranking:
            `0` gives `-g_r * g_f` and `inf` gives `theta * g_f`. `"auto"` balances the two terms:
            `norm(g_r * g_f) / norm(theta * g_f)`.
        accumulate_on: Where the sums stand: `"memory"` (each parameter's device) or `"disk"`.
        folder: Folder of the memory-mapped sums of `"disk"`; None: the system's temporary folder.

    Returns:
        Parameter name to float32 scores of the parameter's shape, in the model's order; on the parameter's device,
        or mapped from disk, on the CPU.

    Raises:
        ValueError: If `gamma` is out of range, a side has no batch, a record has no
            completion token, a parameter is not of floating point, a gradient or score is not finite, the disk is
            too small, `"auto"` finds nothing to balance, or weights are sharded otherwise than by `fully_shard`'s
            default, or with sums on disk.
    """
    if gamma != "auto" and (isinstance(gamma, str) or not gamma >= 0):
        raise ValueError(f"gamma is {gamma!r}; give a number in [0, inf] or 'auto'.")
    sides = {"forget": forget_batches}
    if gamma != math.inf:
        sides["retain"] = retain_batches
    forget, *rest = mean_gradients(model, parameters, sides, accumulate_on=accumulate_on, folder=folder)
    retain = rest[0] if rest else {}
    value = _balancing_gamma(parameters, forget, retain) if gamma == "auto" else float(gamma)

    for name, parameter in parameters.items():
        # The scores replace the forget gradients, and a retain gradient goes once it was used.
        score, theta = local_part(forget[name]), local_part(parameter.detach())
        if value == math.inf:
            score.mul_(theta.to(score.device))
        elif value == 0:
            score.mul_(local_part(retain.pop(name)).neg_())
        else:
            score.mul_(local_part(retain.pop(name)).mul_(-1 / value).add_(theta.to(score.device)))
    if (bad := first_not_finite(forget)) is not None:
        raise ValueError(
            f"gamma={value} gives scores beyond float32 in parameter {bad!r}; use a larger gamma, or 0 for its limit."
        )
    return WeightScores(forget, "wagle", value)


def _balancing_gamma(
    parameters: Mapping[str, Tensor], forget: Mapping[str, Tensor], retain: Mapping[str, Tensor]
) -> float:
    """The gamma at which both terms of the score have the same norm."""
    mesh = mesh_of(forget)
    weight = _norm((_product_norm(theta.detach(), forget[name]) for name, theta in parameters.items()), mesh)
    interference = _norm((_product_norm(retain[name], forget[name]) for name in parameters), mesh)
    if weight == 0 or interference == 0:
        raise ValueError(
            "gamma='auto' finds nothing to balance, for the forget gradient times the "
            f"{'weights' if weight == 0 else 'retain gradient'} is zero everywhere; give gamma as a number."
        )
    return interference / weight


def _norm(parts: Iterable[float], mesh: DeviceMesh | None) -> float:
    """The norm of what has these norms in its parts, on all processes where it is sharded."""
    own = math.hypot(*parts)
    # Not squared where there is no need: numbers near either end of the range would not survive it.
    return own if mesh is None else math.hypot(*gathered(torch.tensor([own], dtype=torch.float64), mesh).flatten())


def _product_norm(a: Tensor, b: Tensor) -> float:
    """Norm of the product, entry by entry, of this process's parts."""
    a, b = local_part(a), local_part(b)
    pieces = zip(a.reshape(-1).split(_CHUNK), b.reshape(-1).split(_CHUNK), strict=True)
    return math.hypot(*(float(torch.linalg.vector_norm(x.to(y.device) * y, dtype=torch.float64)) for x, y in pieces))
