"""How varied answers are: what a model that is broken rather than forgetful loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dareu.data.words import words
from dareu.metrics._metric import Metric


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Different runs of n words over all runs of n words in all texts (distinct-n, Li et al. 2016, arXiv 1510.03055).

    Args:
        texts: At least one.
        n: Words of a run.

    Returns:
        A share in (0, 1]: low where answers are alike. 1 where no text is as long as a run.
    """
    runs = Counter(run for text in texts for run in _runs(text, n))
    return len(runs) / runs.total() if runs else 1.0


def repetition(texts: Sequence[str], n: int = 4) -> NDArray[np.float64]:
    """Share of each text's runs of n words that stood in it before, 1 - distinct-n of the text alone.

    Args:
        texts: m texts.
        n: Words of a run.

    Returns:
        Shares in [0, 1), 0 where a text is shorter than two runs, (m,).
    """
    return np.array([1 - distinct([text], n) for text in texts], dtype=np.float64)


def _runs(text: str, n: int) -> list[tuple[str, ...]]:
    if n < 1:
        raise ValueError(f"n is {n}: give the words of a run, at least 1.")
    said = words(text)
    return [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]


def _numbers(split: str, answers: Sequence[str]) -> dict[str, float | NDArray[np.float64]]:
    return {
        f"{split}_distinct_2": distinct(answers, 2),
        f"{split}_repetition": repetition(answers),
        f"{split}_empty": np.array([not words(answer) for answer in answers], dtype=np.float64),
    }


VARIETY = Metric(_numbers, ("forget", "retain"))
