"""Advantage estimators by name, an open dict, and how one is asked over all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dareu.plugins import needed_parameters, resolve
from dareu.trainers.rl._advantages import (
    ReturnMode,
    generalized_advantages,
    group_advantages,
    moments,
    past_in_returns,
    scale_advantages,
    token_returns,
)
from dareu.trainers.rl._scoring import TokenScores


class Estimate(NamedTuple):
    """What an estimator gives that asks for a critic's values."""

    advantages: Tensor
    """float (N, T)."""
    returns: Tensor
    """float (N, T): what the critic should have said."""


def gae(
    token_rewards: Tensor,
    terminal: Tensor,
    values: Tensor,
    mask: Tensor,
    scored: Tensor,
    return_mode: ReturnMode,
    gamma: float,
    lam: float,
    whiten_advantages: bool,
) -> Estimate:
    """`generalized_advantages`, whose scored tokens may be given mean 0 and variance 1; see `OFFERED`.

    Returns:
        float32 (N, T) both.
    """
    advantages, returns = generalized_advantages(
        token_rewards, terminal, values, mask, gamma=gamma, lam=lam, mode=return_mode
    )
    if whiten_advantages:
        mean, variance = moments(advantages, mask & scored[:, None])
        advantages = (advantages - mean) / (variance.sqrt() + 1e-8)
    return Estimate(advantages, returns)


#: A function of what it asks for, see `OFFERED`, and of options with defaults. It gives float advantages (N, T), or an
#: `Estimate` where it asks for `values`: only then is there a critic.
ESTIMATORS: dict[str, Callable[..., Any]] = {"group": group_advantages, "gae": gae}

#: What an estimator may ask for, of the N completions of all processes, whose longest has T tokens. Groups stand
#: together.
OFFERED: dict[str, str] = {
    "returns": "float32 (N, T): what each token earns from itself to the end, 0 on padding",
    "token_rewards": "float32 (N, T): the dense rewards, less the price of the KL, 0 on padding",
    "terminal": "float32 (N,): the sequence rewards",
    "mask": "bool (N, T): the tokens that count, at the left",
    "scored": "bool (N,): False where no reward applied",
    "values": "float32 (N, T): the critic's, of the state before each token, 0 on padding",
    "num_generations": "the size of a group, which divides N",
    "return_mode": "the option, 'mean' or 'sum'",
    "gamma": "the option",
    "lam": "the option",
    "whiten_advantages": "the option",
}


class Estimator(NamedTuple):
    """An estimator, with what is known of it before it is asked."""

    name: str
    """As it was named in the options."""
    function: Callable[..., Any]
    """See `ESTIMATORS`."""
    needs: tuple[str, ...]
    """What it asks for, of `OFFERED`."""
    options: Mapping[str, Any]
    """Its own."""

    @property
    def has_critic(self) -> bool:
        """Whether it weighs rewards against a critic."""
        return "values" in self.needs

    def __call__(self, offered: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """The advantages, and of one with a critic the returns: float32 (N, T), 0 where nothing was scored.

        Args:
            offered: See `OFFERED`.

        Raises:
            ValueError: They are not what an estimator has to give.
        """
        given = self.function(**{name: offered[name] for name in self.needs}, **self.options)
        if self.has_critic and not (isinstance(given, tuple) and len(given) == 2):
            raise ValueError(
                f"The advantage estimator {self.name!r} asks for values and gives {type(given).__name__}: let it "
                "return an Estimate of advantages and returns."
            )
        counted = offered["mask"] & offered["scored"][:, None]
        named = zip(Estimate._fields, given if self.has_critic else (given,), strict=False)
        checked = [self._checked(what, tensor, counted) for what, tensor in named]
        return checked[0], checked[1] if self.has_critic else None

    def _checked(self, what: str, given: Any, counted: Tensor) -> Tensor:
        if not isinstance(given, Tensor) or given.shape != counted.shape or not given.is_floating_point():
            kind = f"{given.dtype} of shape {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
            raise ValueError(
                f"The advantage estimator {self.name!r} gives {kind} as {what}: give floats of shape "
                f"{tuple(counted.shape)}, one for each token."
            )
        taken: Tensor = torch.where(counted, given.float(), 0.0)
        if not taken.isfinite().all():
            raise ValueError(
                f"The advantage estimator {self.name!r} gives a NaN or infinite number among its {what}: give finite "
                "ones for all tokens that count."
            )
        return taken


def find_estimator(spec: str, options: Mapping[str, Any]) -> Estimator:
    """The estimator that an option names.

    Args:
        spec: A key of `ESTIMATORS`, `pkg.mod:Name` or `path/to/file.py:Name`.
        options: Its own options.

    Raises:
        ValueError: There is none, it asks for what is not offered, or it has no such option.
    """
    function = resolve(spec, ESTIMATORS)
    needs = needed_parameters(function, OFFERED, options, f"The advantage estimator {spec!r}")
    return Estimator(spec, function, needs, options)


def estimate(
    estimator: Estimator,
    scores: TokenScores,
    values: Tensor | None,
    accelerator: Any,
    *,
    num_generations: int,
    return_mode: ReturnMode,
    causal_returns: bool,
    scale_rewards: str,
    **options: Any,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Advantages over all processes; every process must call this.

    Args:
        estimator: The estimator.
        scores: Of this process; groups stand together over the processes, and may be split between them.
        values: float32 (B, T), of an estimator that asks for them.
        accelerator: Gathers.
        num_generations: Size of a group.
        return_mode: See `token_returns`.
        causal_returns: Whether `past_in_returns` is left out of `returns`.
        scale_rewards: See `scale_advantages`.
        **options: The others of `OFFERED`.

    Returns:
        `advantages`, and with a critic `old_values`, `returns` (float32) and `value_mask` (bool), each (B, T) of this
        process; and what there is to log: the share of groups with no spread, where there are groups, and with a critic
        the share of the returns' variance that it explains, at most 1.

    Raises:
        ValueError: The estimator's own, or what it gives cannot be.
    """

    def padded(tensor: Tensor) -> Tensor:
        gathered: Tensor = accelerator.gather(accelerator.pad_across_processes(tensor.contiguous(), dim=1))
        return gathered

    # As numbers: padding turns bools into numbers on the process that needs it alone.
    earned, mask = padded(scores.rewards), padded(scores.mask.long()).bool()
    rewards = earned - padded(scores.price)
    terminal, scored = accelerator.gather(scores.terminal), accelerator.gather(scores.scored)
    returns = token_returns(rewards, terminal, mask, return_mode)
    if causal_returns:
        returns = returns - past_in_returns(earned, mask, return_mode)
    offered = options | {
        "returns": returns,
        "token_rewards": rewards,
        "terminal": terminal,
        "mask": mask,
        "scored": scored,
        "num_generations": num_generations,
        "return_mode": return_mode,
    }
    own: dict[str, Tensor] = {}
    if estimator.has_critic:
        assert values is not None
        own = {"old_values": torch.where(scores.mask, values, 0.0), "value_mask": scores.mask & scores.scored[:, None]}
        offered["values"] = padded(own["old_values"])
    advantages, targets = estimator(offered)

    def mine(tensor: Tensor) -> Tensor:
        first = accelerator.process_index * len(scores.mask)
        return tensor[first : first + len(scores.mask), : scores.mask.shape[1]].contiguous()

    counted, logged = mask & scored[:, None], {}
    if num_generations > 1:
        centred = group_advantages(returns, mask, scored, num_generations)
        flat = (centred.view(-1, num_generations * centred.shape[1]).abs() < 1e-6).all(1)
        logged["frac_groups_without_spread"] = flat.float().mean().item()
    if targets is not None:
        own["returns"] = mine(targets)
        unexplained = moments(targets - offered["values"], counted)[1] / moments(targets, counted)[1].clamp(min=1e-8)
        logged["explained_variance"] = (1 - unexplained).item()
    own["advantages"] = mine(scale_advantages(advantages, counted, scale_rewards, num_generations))
    return own, logged
