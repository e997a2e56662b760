"""Whose data an answer sounds like, by a judge's opinion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dareu.metrics._metric import Metric

NO_OWNER = "none"

#: How the numbers of a judge's job end.
_ENDINGS = {"reward": "", "validation": "_validation", "test": "_heldout"}


class Judge(Protocol):
    """scikit-learn's classifier contract, as far as metrics need it."""

    @property
    def classes_(self) -> Any:
        """Owner names, (C,); the reserved "none" is no owner."""

    def predict_proba(self, texts: list[str], /) -> ArrayLike:
        """Probabilities (n, C) of the classes; rows sum to 1."""


class AttributionScores(NamedTuple):
    """What a judge thinks of n answers."""

    forget: NDArray[np.float64]
    """Summed probability of the forget owners, (n,)."""
    retained: NDArray[np.float64]
    """Highest probability of any one retained owner, (n,); NaN where the judge knows no retained owner."""


def forget_attribution(judge: Judge, answers: Sequence[str], forget_owners: Sequence[str]) -> float:
    """Mean over answers of the summed probability of the forget owners, in [0, 1].

    Args:
        judge: A classifier that knows the forget owners.
        answers: At least one answer; an empty one is judged like any other.
        forget_owners: Owners to forget, each one of the judge's classes.

    Raises:
        ValueError: There are no answers, an owner is not among the judge's classes, or a row of the judge's
            is not finite or does not sum to 1.
    """
    return float(attribution_scores(judge, answers, forget_owners).forget.mean())


def misattribution(judge: Judge, answers: Sequence[str], forget_owners: Sequence[str]) -> float:
    """Mean over answers of the highest probability of any retained owner, in [0, 1].

    To be read beside the retrained model's: the excess over it is blame shifted onto somebody else. The class
    "none" is no owner.

    Raises:
        ValueError: See `forget_attribution`; or the judge knows no retained owner.
    """
    scores = attribution_scores(judge, answers, forget_owners)
    if np.isnan(scores.retained).any():
        raise ValueError("The judge knows no owner beside the forget owners: train it on retained owners too.")
    return float(scores.retained.mean())


def attribution_scores(judge: Judge, answers: Sequence[str], forget_owners: Sequence[str]) -> AttributionScores:
    """Both readings of a judge from one pass over the answers.

    Raises:
        ValueError: See `forget_attribution`.
    """
    columns = forget_columns(judge, forget_owners)
    if not answers:
        raise ValueError("There are no answers to attribute: give at least one.")
    classes = [str(name) for name in judge.classes_]
    probabilities = _checked(np.asarray(judge.predict_proba(list(answers)), dtype=np.float64), len(answers), classes)
    others = [i for i, name in enumerate(classes) if i not in columns and name != NO_OWNER]
    retained = probabilities[:, others].max(axis=1) if others else np.full(len(answers), np.nan)
    return AttributionScores(probabilities[:, columns].sum(axis=1), retained)


def forget_columns(judge: Judge, forget_owners: Sequence[str]) -> list[int]:
    """Columns of the forget owners in the judge's probabilities.

    Raises:
        ValueError: No owner is named, or one is not among the judge's classes.
    """
    if isinstance(forget_owners, str) or not forget_owners:
        raise ValueError(f"The owners to forget are {forget_owners!r}: name them as a list of at least one.")
    classes = [str(name) for name in judge.classes_]
    owners = [name for name in classes if name != NO_OWNER]
    unknown = [owner for owner in forget_owners if owner not in owners]
    if unknown:
        raise ValueError(f"The judge does not know the owner {unknown[0]!r}; its classes are {', '.join(classes)}.")
    return [classes.index(owner) for owner in dict.fromkeys(forget_owners)]


def _checked(probabilities: NDArray[np.float64], rows: int, classes: list[str]) -> NDArray[np.float64]:
    if probabilities.shape != (rows, len(classes)):
        raise ValueError(
            f"The judge's predict_proba returned an array of shape {probabilities.shape}: "
            f"it must return one row an answer and one column a class, {(rows, len(classes))}."
        )
    sums = probabilities.sum(axis=1)
    bad = np.flatnonzero(~((probabilities >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-3)))
    if bad.size:
        raise ValueError(
            f"The judge's probabilities in row {bad[0]} sum to {sums[bad[0]]:.6g}, with the smallest "
            f"{probabilities[bad[0]].min():.6g}: they must be finite, not negative, and sum to 1."
        )
    return probabilities


def _numbers(split: str, judgements: Mapping[str, AttributionScores]) -> dict[str, NDArray[np.float64]]:
    numbers = {}
    for form in ("", "_stripped"):
        for job, ending in _ENDINGS.items():
            if job + form in judgements:
                numbers[f"{split}_attribution{ending}{form}"] = judgements[job + form].forget
        if "test" + form in judgements:
            numbers["misattribution" + form] = judgements["test" + form].retained
    return numbers


ATTRIBUTION = Metric(
    _numbers,
    ("forget",),
    (
        "forget_attribution",
        "forget_attribution_stripped",
        "forget_attribution_heldout",
        "forget_attribution_heldout_stripped",
        "misattribution",
    ),
)
