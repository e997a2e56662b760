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


def past_in_returns(token_rewards: Tensor, mask: Tensor, mode: ReturnMode) -> Tensor:
    """What of each token's return was decided before the token, of rewards that are running means.

    With r_t = C_t / t, where C_t sums the scores up to t, the tokens t'' ≥ t have C_{t−1} / t'' of their rewards from
    what stood there already. No choice of token t changes that, so that returns without it have the same expected
    gradient, and a smaller variance: the reward-to-go of a running mean.

    Args:
        token_rewards: (B, T), the running means, 0 where `mask` is False.
        mask: (B, T) bool.
        mode: That of `token_returns`.

    Returns:
        float32 (B, T), 0 where `mask` is False.
    """
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=torch.float32)
    before = torch.nn.functional.pad(torch.where(mask, token_rewards.float(), 0.0) * steps, (1, 0))[:, :-1]
    return before * token_returns((1 / steps).expand(mask.shape), torch.zeros_like(before[:, 0]), mask, mode)


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


def generalized_advantages(
    token_rewards: Tensor,
    terminal: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    mode: ReturnMode = "mean",
) -> tuple[Tensor, Tensor]:
    """Advantages against a critic by GAE (Schulman et al., ICLR 2016, eq. 16), and what the critic should have said.

    In mode `"sum"` δ_t = r_t + γ V_{t+1} − V_t, with the sequence reward at the last token. In mode `"mean"` a return
    is the (discounted) mean of the remaining rewards, R_t = (r_t + γ N_{t+1} R_{t+1}) / N_t with N_t = 1 + γ N_{t+1},
    and δ_t follows that recursion. With λ = γ = 1 and a critic that says 0, the advantages are `token_returns`.

    Args:
        token_rewards: (B, T), 0 where `mask` is False.
        terminal: (B,), the sequence rewards.
        values: (B, T), V of the state before each token.
        mask: (B, T) bool.
        gamma: Discount γ in [0, 1].
        lam: λ in [0, 1]: 0 trusts the critic after one token, 1 the rewards alone.
        mode: `"mean"` or `"sum"`.

    Returns:
        Advantages and returns (advantage + value), both (B, T) in the dtype of `values`, 0 where `mask` is False.
    """
    rewards = torch.where(mask, token_rewards, 0.0).to(values.dtype)
    advantages = torch.zeros_like(values)
    after = torch.zeros_like(values[:, 0])  # advantage, value and N one token later; 0 beyond the end
    next_value, remaining = torch.zeros_like(after), torch.zeros_like(after)
    for t in range(mask.shape[1] - 1, -1, -1):
        count = 1 + gamma * remaining
        if mode == "mean":  # a sequence reward is earned in full by every token
            reward, discount = (rewards[:, t] + terminal) / count, gamma * remaining / count
        else:
            last = remaining == 0
            reward, discount = rewards[:, t] + torch.where(last, terminal, 0.0), torch.full_like(after, gamma)
        delta = reward + discount * next_value - values[:, t]
        after = torch.where(mask[:, t], delta + discount * lam * after, 0.0)
        next_value = torch.where(mask[:, t], values[:, t], 0.0)
        remaining = torch.where(mask[:, t], count, 0.0)
        advantages[:, t] = after
    return advantages, torch.where(mask, advantages + values, 0.0)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, cliprange: float | None) -> Tensor:
    """PPO's value loss ½ max((V − R)², (clip(V, V_old ± c) − R)²) of each token, without c ½ (V − R)²."""
    if cliprange is None:
        return 0.5 * (values - returns).square()
    clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of `values` where `mask`, of the same shape, is True: scalars, 0 where it nowhere is."""
    count = mask.sum().float().clamp(min=1.0)
    mean = (values * mask).sum() / count
    return mean, ((values - mean).square() * mask).sum() / count
