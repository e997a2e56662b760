"""From scores of slices to token-level advantages: plain functions on padded tensors.

Shapes: B completions of at most T tokens; `mask` (B, T) bool marks real tokens, which stand at the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

ReturnMode = Literal["mean", "sum"]


def slice_ends(num_tokens: int, num_slices: int) -> list[int]:
    """Where slices end: ⌈j·T/k⌉ for j = 1…k, duplicates dropped when T < k.

    Args:
        num_tokens: T ≥ 1, the tokens of this completion with its end token.
        num_slices: k ≥ 1.

    Returns:
        Ascending token counts; the last is T.

    >>> slice_ends(10, 4)
    [3, 5, 8, 10]
    >>> slice_ends(2, 4)
    [1, 2]
    """
    return sorted({-(-j * num_tokens // num_slices) for j in range(1, num_slices + 1)})


def running_mean(scores: Sequence[float], ends: Sequence[int]) -> Tensor:
    """r_t = mean over t' ≤ t of the score of the slice that holds t'.

    Args:
        scores: One score a slice.
        ends: The slices' ends in tokens.

    Returns:
        float32 of shape (ends[-1],).
    """
    sizes = torch.diff(torch.tensor([0, *ends]))
    per_token = torch.tensor(scores, dtype=torch.float64).repeat_interleave(sizes)
    steps = torch.arange(1, len(per_token) + 1, dtype=torch.float64)
    return (per_token.cumsum(0) / steps).to(torch.float32)


def token_returns(token_rewards: Tensor, terminal: Tensor, mask: Tensor, mode: ReturnMode) -> Tensor:
    """What each token earns from itself to the end.

    `"sum"` adds the rewards of the remaining tokens, as the paper does; since they are ≤ 0, an early end then pays.
    `"mean"` averages them, so that equal scores give equal returns at any length. A sequence reward comes with the
    last token and is earned by every token before it, in full, in either mode.

    Args:
        token_rewards: (B, T), 0 where `mask` is False.
        terminal: (B,), the sequence rewards.
        mask: (B, T) bool.
        mode: `"mean"` or `"sum"`.

    Returns:
        float32 (B, T), 0 where `mask` is False.
    """
    rewards = torch.where(mask, token_rewards.float(), 0.0)
    returns = rewards.flip(1).cumsum(1).flip(1)
    if mode == "mean":
        returns = returns / mask.flip(1).cumsum(1).flip(1).clamp(min=1)
    return torch.where(mask, returns + terminal.float()[:, None], 0.0)


def group_advantages(returns: Tensor, mask: Tensor, scored: Tensor, num_generations: int) -> Tensor:
    """Returns minus the group's mean return at the same position.

    Args:
        returns: (N, T), the groups of one prompt's generations standing together.
        mask: (N, T) bool.
        scored: (N,) bool; a completion no reward applies to has advantage 0 and no part in the mean.
        num_generations: Size of a group; divides N.

    Returns:
        float32 (N, T), 0 where `mask` is False. Where one completion alone is that long, it is its own mean.
    """
    counted = (mask & scored[:, None]).view(-1, num_generations, mask.shape[1])
    grouped = torch.where(counted, returns.view_as(counted).float(), 0.0)
    baseline = grouped.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
    return torch.where(counted, grouped - baseline, 0.0).view_as(returns)


def scale_advantages(
    advantages: Tensor, mask: Tensor, scale_rewards: str, num_generations: int, epsilon: float = 1e-4
) -> Tensor:
    """Divides by a standard deviation over tokens: of the whole batch, of each group, or not at all.

    Args:
        advantages: (N, T).
        mask: (N, T) bool.
        scale_rewards: `"batch"`, `"group"` or `"none"` (TRL's names).
        num_generations: Size of a group.
        epsilon: Added to the deviation.
    """
    if scale_rewards == "none":
        return advantages
    size = len(advantages) if scale_rewards == "batch" else num_generations
    grouped = advantages.view(-1, size, advantages.shape[1])
    inside = mask.view_as(grouped)
    count = inside.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (grouped * inside).sum((1, 2), keepdim=True) / count
    variance = ((grouped - mean).square() * inside).sum((1, 2), keepdim=True) / count
    return (grouped / (variance.sqrt() + epsilon)).view_as(advantages)
