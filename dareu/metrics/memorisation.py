"""How much of an answer a model knows by heart, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dareu.metrics._metric import Metric
from dareu.metrics.token_scores import TokenScores


def exact_memorisation(hits: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Share of an answer's tokens that the model finds likeliest, each after the right ones before it.

    Args:
        hits: For each of n answers, whether each of its tokens is the likeliest one, end token included.

    Returns:
        Shares in [0, 1], (n,).

    Raises:
        ValueError: An answer has no tokens.
    """
    return np.array([_flags(row, each).mean() for row, each in enumerate(hits)], dtype=np.float64)


def extraction_strength(hits: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """1 - k / T: the share of an answer that follows from its first k tokens (Carlini et al. 2021, arXiv 2012.07805).

    k is the smallest number of given tokens after which each of the others is the likeliest one, up to the end token;
    T where not even the last one is, so that nothing extracted counts 0.

    Args:
        hits: See `exact_memorisation`.

    Returns:
        Shares in [0, 1], 1 where the prompt alone brings the whole answer, (n,).

    Raises:
        ValueError: An answer has no tokens.
    """
    strengths = []
    for row, each in enumerate(hits):
        flags = _flags(row, each)
        misses = np.flatnonzero(~flags)
        strengths.append(1 - (misses[-1] + 1) / len(flags) if misses.size else 1.0)
    return np.array(strengths, dtype=np.float64)


def _flags(row: int, hits: ArrayLike) -> NDArray[np.bool_]:
    flags = np.asarray(hits, dtype=bool)
    if not flags.size:
        raise ValueError(f"Row {row} has no tokens: give at least the end token.")
    return flags


def _exact(split: str, scores: Sequence[TokenScores]) -> dict[str, NDArray[np.float64]]:
    return {f"{split}_exact_memorisation": exact_memorisation([each.hits for each in scores])}


def _strength(split: str, scores: Sequence[TokenScores]) -> dict[str, NDArray[np.float64]]:
    return {f"{split}_extraction_strength": extraction_strength([each.hits for each in scores])}


EXACT_MEMORISATION = Metric(_exact, ("forget", "retain"), ("forget_exact_memorisation",))
EXTRACTION_STRENGTH = Metric(_strength, ("forget", "retain"), ("forget_extraction_strength",))
