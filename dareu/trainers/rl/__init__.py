"""Reinforcement learning on the model's own answers: rollouts, scores, estimators, critic, trainer."""

from dareu.trainers.rl.estimators import ESTIMATORS, Estimate

__all__ = ["ESTIMATORS", "Estimate"]
