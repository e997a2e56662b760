"""Reinforcement learning on the model's own answers: rollouts, scores, estimators, critic, trainer."""
