"""From what the rewards said of a batch to its advantages, over all processes: against the group, or a critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dareu.trainers.rl.advantages import (
    ReturnMode,
    generalized_advantages,
    group_advantages,
    running_mean,
    scale_advantages,
    token_returns,
)
from dareu.trainers.rl.scoring import SliceScorer


class TokenScores(NamedTuple):
    """What the rewards said of this process's B completions of at most T tokens."""

    rewards: Tensor
    """float32 (B, T): the dense rewards, 0 on padding."""
    terminal: Tensor
    """float32 (B,): the sequence rewards."""
    scored: Tensor
    """bool (B,): False where no reward applied."""
    mask: Tensor
    """bool (B, T): the tokens that count; a completion that was cut off may have none."""


def token_scores(funcs: Sequence[Any], weights: Tensor, sequence_rewards: Tensor, mask: Tensor) -> TokenScores:
    """Lays the weighted scores of the last call of each reward over the completions' tokens.

    Args:
        funcs: The rewards; a dense one is a `SliceScorer` that remembers its slices.
        weights: (F,).
        sequence_rewards: (B, F), NaN where a reward does not apply.
        mask: (B, T) bool.
    """
    rewards = torch.zeros(mask.shape, device=mask.device)
    terminal = torch.zeros(len(mask), device=mask.device)
    scored = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
    for column, (reward, weight) in enumerate(zip(funcs, weights.tolist(), strict=True)):
        values = sequence_rewards[:, column]
        scored |= ~values.isnan()
        if not (isinstance(reward, SliceScorer) and reward.dense):
            terminal += weight * values.nan_to_num(0.0)
            continue
        for row, (scores, ends) in enumerate(zip(reward.scores, reward.ends, strict=True)):
            if scores is not None:
                rewards[row, : ends[-1]] += weight * running_mean(scores, ends).to(mask.device)
    return TokenScores(rewards, terminal, scored, mask)


def group_estimate(
    scores: TokenScores, accelerator: Any, *, num_generations: int, return_mode: ReturnMode, scale_rewards: str
) -> tuple[Tensor, float]:
    """Advantages against the mean of each gathered group.

    Args:
        scores: Groups stand together over the processes, and may be split between them.
        accelerator: Gathers.
        num_generations: Size of a group.
        return_mode: See `token_returns`.
        scale_rewards: See `scale_advantages`.

    Returns:
        float32 (B, T) of this process, and the share of groups with no spread.
    """
    mask = scores.mask
    returns = token_returns(scores.rewards, scores.terminal, mask, return_mode)
    all_returns = accelerator.gather(accelerator.pad_across_processes(returns.contiguous(), dim=1))
    # As numbers: padding turns bools into numbers on the process that needs it alone.
    all_mask = accelerator.gather(accelerator.pad_across_processes(mask.long(), dim=1)).bool()
    advantages = group_advantages(all_returns, all_mask, accelerator.gather(scores.scored), num_generations)
    flat = (advantages.view(-1, num_generations * advantages.shape[1]).abs() < 1e-6).all(1)
    advantages = scale_advantages(advantages, all_mask, scale_rewards, num_generations)
    first = accelerator.process_index * len(mask)
    return advantages[first : first + len(mask), : mask.shape[1]].contiguous(), flat.float().mean().item()


def critic_estimate(
    scores: TokenScores,
    values: Tensor,
    accelerator: Any,
    *,
    gamma: float,
    lam: float,
    return_mode: ReturnMode,
    whiten: bool,
) -> tuple[dict[str, Tensor], float]:
    """Advantages against a critic, and what the value loss needs.

    Args:
        scores: Of this process.
        values: float32 (B, T), V of the state before each token.
        accelerator: Adds up over processes.
        gamma: See `generalized_advantages`, as are `lam` and `return_mode`.
        lam: λ.
        return_mode: `"mean"` or `"sum"`.
        whiten: Give the advantages of all processes' scored tokens mean 0 and variance 1.

    Returns:
        `advantages`, `old_values`, `returns` (float32) and `value_mask` (bool), each (B, T); and the share of the
        returns' variance that the critic explains, at most 1.
    """
    mask = scores.mask & scores.scored[:, None]
    values = torch.where(scores.mask, values, 0.0)
    advantages, returns = generalized_advantages(
        scores.rewards, scores.terminal, values, scores.mask, gamma=gamma, lam=lam, mode=return_mode
    )
    mean, variance = _moments(advantages, mask, accelerator)
    explained = 1 - variance / _moments(returns, mask, accelerator)[1].clamp(min=1e-8)
    if whiten:
        advantages = (advantages - mean) / (variance.sqrt() + 1e-8)
    tensors = {"advantages": torch.where(mask, advantages, 0.0), "old_values": values}
    return tensors | {"returns": returns, "value_mask": mask}, explained.item()


def _moments(values: Tensor, mask: Tensor, accelerator: Any) -> tuple[Tensor, Tensor]:
    """Mean and variance over the tokens of all processes."""
    count = accelerator.reduce(mask.sum().float(), reduction="sum").clamp(min=1.0)
    mean = accelerator.reduce((values * mask).sum(), reduction="sum") / count
    return mean, accelerator.reduce(((values - mean).square() * mask).sum(), reduction="sum") / count
