"""Rewards for de-attribution: TRL reward callables over generations and a classifier."""

from dareu.rewards.deattribution import DeattributionReward, linear_transform, log_transform
from dareu.rewards.fluency import FluencyReward

__all__ = ["DeattributionReward", "FluencyReward", "linear_transform", "log_transform"]
