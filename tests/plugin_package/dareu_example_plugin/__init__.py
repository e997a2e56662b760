"""A plug-in for dareu: a classifier, a reward and advantage estimators that it knows nothing of.

Install this folder with pip, and name them ``dareu_example_plugin:LengthClassifier``,
``dareu_example_plugin:BrevityReward``, ``dareu_example_plugin:leave_one_out`` and ``dareu_example_plugin:monte_carlo``.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dareu_example_plugin.estimators import leave_one_out, monte_carlo

__all__ = ["BrevityReward", "LengthClassifier", "leave_one_out", "monte_carlo"]


class LengthClassifier:
    """Tells owners apart by the number of words alone."""

    def __init__(self, scale: float = 2.0) -> None:
        self.scale = scale

    def fit(self, texts: Sequence[str], owners: Sequence[str]) -> "LengthClassifier":
        """Learns the mean number of words of each owner."""
        lengths, labels = np.array([len(text.split()) for text in texts]), np.array(owners)
        self.classes_ = np.unique(labels)
        self.means_ = np.array([lengths[labels == owner].mean() for owner in self.classes_])
        return self

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities of shape (texts, owners): the nearer the mean, the likelier; rows sum to 1."""
        lengths = np.array([[len(text.split())] for text in texts]).reshape(-1, 1)
        scores = np.exp(-np.abs(lengths - self.means_) / self.scale)
        return scores / scores.sum(axis=1, keepdims=True)


class BrevityReward:
    """1 for an answer of at most ``limit`` words, 0 for a longer one; does not apply to an empty answer."""

    def __init__(self, limit: int = 20) -> None:
        self.limit = limit
        self.__name__ = f"brevity_{limit}"

    def __call__(self, prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
        """One value a completion, in the form that TRL asks for."""
        lengths = [len(completion.split()) for completion in completions]
        return [float(length <= self.limit) if length else None for length in lengths]
