"""A classifier that follows scikit-learn's contract and knows nothing of dareu."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
