"""Advantage estimators for `--advantage_estimator dareu_example_plugin:leave_one_out`, and `…:monte_carlo`."""

import torch
from torch import Tensor


def leave_one_out(returns: Tensor, mask: Tensor, scored: Tensor, num_generations: int, *, scale: float = 1.0) -> Tensor:
    """A token's return minus the mean of its group's others at the same position, times `scale`: (N, T)."""
    counted = (mask & scored[:, None]).view(-1, num_generations, mask.shape[1])
    grouped = torch.where(counted, returns.view_as(counted), 0.0)
    others = counted.sum(1, keepdim=True) - 1
    baseline = (grouped.sum(1, keepdim=True) - grouped) / others.clamp(min=1)
    return scale * torch.where(others > 0, grouped - baseline, 0.0).view_as(returns)


def monte_carlo(returns: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """A token's return minus what the critic expected, and the return itself for the critic to learn: (N, T) both."""
    return returns - values, returns
