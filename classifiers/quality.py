"""How good a classifier is on rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from dareu.classifiers.contract import Classifier, checked_proba, class_names, owner_columns

_BINS = 10


def quality_card(classifier: Classifier, texts: Iterable[str], labels: Iterable[str]) -> dict[str, Any]:
    """Accuracy, log loss and calibration on held-out texts, as a dict that JSON takes.

    Args:
        classifier: keeps the contract.
        texts: n held-out texts.
        labels: their n owners, each one of the classes.

    Returns:
        `count` (n), `accuracy`, `log_loss` (mean -ln of the true class's probability, floored at 1e-12),
        `calibration_error` (expected calibration error: 10 equal bins of the highest probability), and
        `recall`, {class: share of its texts that it wins, or None where it has no text}.

    Raises:
        ValueError: no texts, lengths that differ, a label that is no class, or a contract that is broken.
    """
    texts, labels = list(texts), list(labels)
    if not texts or len(texts) != len(labels):
        raise ValueError(f"quality_card got {len(texts)} texts and {len(labels)} labels: give one label for each text.")
    proba = checked_proba(classifier, texts)
    truth = np.array(owner_columns(classifier, labels))
    winner, confidence = proba.argmax(axis=1), proba.max(axis=1)
    right = winner == truth

    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs((right[bins == b] - confidence[bins == b]).sum()) for b in range(_BINS)]
    recall = {
        name: float(right[truth == column].mean()) if (truth == column).any() else None
        for column, name in enumerate(class_names(classifier))
    }
    return {
        "count": len(texts),
        "accuracy": float(right.mean()),
        "log_loss": float(-np.log(np.maximum(proba[np.arange(len(texts)), truth], 1e-12)).mean()),
        "calibration_error": float(sum(gaps) / len(texts)),
        "recall": recall,
    }
