"""Rewards: TRL reward callables over generations, by name in an open dict.

A reward is made by what stands in `REWARDS`, a class or a function. Its parameters without a default name what it is
given: `classifier`, `forget_owners` (list of names), `nll` (`nll(prompts, completions)`: each completion's mean NLL
under the base model in nats a token), `retained` (the retained rows, with `prompt` and `completion`) and `tokenizer`.
Those with one are its options.
"""

from collections.abc import Callable
from typing import Any

from dareu.rewards.deattribution import DeattributionReward, linear_transform, log_transform
from dareu.rewards.fluency import FluencyReward

__all__ = ["REWARDS", "DeattributionReward", "FluencyReward", "linear_transform", "log_transform"]

#: What makes a reward, by name: an open dict.
REWARDS: dict[str, Callable[..., Any]] = {
    "deattribution": DeattributionReward,
    "fluency": FluencyReward.calibrate,
}
