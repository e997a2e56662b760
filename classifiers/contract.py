"""What a classifier must offer, and checks that say in one sentence what it breaks.

The contract is scikit-learn's: `classes_` and `predict_proba(texts)`. A fitted text Pipeline, a calibrated
classifier, this package's classifiers and a user's own class all serve unchanged.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]

NONE_CLASS = "none"
"""Reserved class name for texts that belong to no owner."""

TOLERANCE = 1e-4
"""How far row sums and repeated scores may stray before a classifier is refused."""


@runtime_checkable
class Classifier(Protocol):
    """Text to P(owner).

    A classifier may also have `predict_proba_at(texts, ends)`: for each text the probabilities of its
    prefixes that end at the given character offsets, as a list of float arrays (len(ends[i]), C). `proba_at`
    uses it where it exists.
    """

    @property
    def classes_(self) -> Sequence[str] | NDArray[Any]:
        """Owner names in column order, optionally with the reserved `"none"`."""

    def predict_proba(self, texts: list[str], /) -> NDArray[Any]:
        """Float probabilities (n, C), each row summing to 1; any text may come, the empty one too."""


def class_names(classifier: Classifier) -> list[str]:
    """Names of the classes in column order.

    Raises:
        ValueError: `classes_` is missing, empty, holds a name twice, however encoded, or what is no string.
    """
    name = type(classifier).__name__
    if not hasattr(classifier, "classes_"):
        raise ValueError(f"{name} has no `classes_`: fit it, or set `classes_` to the owner names in column order.")
    classes = list(classifier.classes_)
    if not classes:
        raise ValueError(f"{name}.classes_ is empty: it must list the owner names in column order.")
    seen: set[str] = set()
    for owner in classes:
        if not isinstance(owner, str):
            raise ValueError(f"{name}.classes_ holds {owner!r}, but owner names must be strings.")
        if _name(owner) in seen:
            raise ValueError(f"{name}.classes_ holds {str(owner)!r} twice, but every class needs a column of its own.")
        seen.add(_name(owner))
    return [str(owner) for owner in classes]


def owner_columns(classifier: Classifier, owners: Iterable[str]) -> list[int]:
    """Columns of `predict_proba` that belong to `owners`, in their order, however their names are encoded.

    Raises:
        ValueError: the classifier does not know an owner; the message lists the classes there are. Its `"none"` is
            nobody.
    """
    names = class_names(classifier)
    columns = {_name(name): column for column, name in enumerate(names) if name != NONE_CLASS}
    owners = list(owners)
    unknown = [owner for owner in owners if _name(owner) not in columns]
    if unknown:
        raise ValueError(f"The classifier does not know {unknown}: its classes are {names}.")
    return [columns[_name(owner)] for owner in owners]


def _name(owner: str) -> str:
    """The owner however composed letters and blanks around are encoded."""
    return unicodedata.normalize("NFC", owner).replace("\u00a0", " ").strip()


def checked_proba(classifier: Classifier, texts: Iterable[str]) -> FloatArray:
    """`predict_proba(texts)` as float64 (n, C), refused unless every row is a probability distribution.

    Raises:
        ValueError: not a float array, wrong shape, NaN, inf or negative entries, or a row sum off 1 by 1e-4.
    """
    texts = list(texts)
    columns = len(class_names(classifier))
    if not texts:
        return np.empty((0, columns))
    source = f"{type(classifier).__name__}.predict_proba"
    return _checked_rows(source, classifier.predict_proba(texts), (len(texts), columns))


def proba_at(classifier: Classifier, texts: Iterable[str], ends: Iterable[Sequence[int]]) -> list[FloatArray]:
    """Probabilities of the prefixes of each text that end at the given character offsets.

    One call of `predict_proba_at` where the classifier has it (it may snap an end left to its own token
    border), else one `predict_proba` of all the cut texts, each distinct one once. An empty prefix is scored
    like any other text: an answer may be empty, so `check_classifier` demands that a classifier can do it.

    Args:
        classifier: keeps the contract.
        texts: n strings.
        ends: n sequences of offsets, each within 0..len(text).

    Returns:
        n float64 arrays (len(ends[i]), C).

    Raises:
        ValueError: lengths that do not match, an offset outside its text, or rows `checked_proba` refuses.
    """
    texts, ends = list(texts), [list(offsets) for offsets in ends]
    if len(texts) != len(ends):
        raise ValueError(f"There are {len(texts)} texts but {len(ends)} lists of ends: give one list for each text.")
    for row, (text, offsets) in enumerate(zip(texts, ends, strict=True)):
        if any(not 0 <= end <= len(text) for end in offsets):
            raise ValueError(f"The ends {offsets} of text {row} must lie within 0..{len(text)}, the text's length.")
    if not hasattr(classifier, "predict_proba_at"):
        cuts = [text[:end] for text, offsets in zip(texts, ends, strict=True) for end in offsets]
        row_of = {cut: row for row, cut in enumerate(dict.fromkeys(cuts))}
        proba = checked_proba(classifier, row_of)
        flat = proba[[row_of[cut] for cut in cuts]]
        return np.split(flat, np.cumsum([len(offsets) for offsets in ends])[:-1]) if texts else []

    source = f"{type(classifier).__name__}.predict_proba_at"
    answers = list(classifier.predict_proba_at(texts, ends)) if texts else []
    if len(answers) != len(texts):
        raise ValueError(
            f"{source} returned {len(answers)} arrays for {len(texts)} texts: it must return one for each."
        )
    columns = len(class_names(classifier))
    return [_checked_rows(source, rows, (len(at), columns)) for rows, at in zip(answers, ends, strict=True)]


def check_classifier(classifier: Classifier, texts: Iterable[str]) -> None:
    """Checks that `classifier` keeps the contract on `texts`, a few samples of what it will score.

    Beside the checks of `checked_proba`: the empty text can be scored, a text's probabilities stay the same
    (1e-4) whatever else is in the batch and in whatever order, and `predict_proba_at`, where there is one,
    agrees with `predict_proba` at the end of a text.

    Raises:
        ValueError: one sentence that names what is broken and how to mend it.
    """
    texts = list(texts)
    if not texts:
        raise ValueError("check_classifier needs at least one text to try the classifier on.")
    class_names(classifier)
    name = type(classifier).__name__
    if not hasattr(classifier, "predict_proba"):
        raise ValueError(f"{name} has no `predict_proba(texts)`: give it one that returns an (n, C) float array.")
    proba = checked_proba(classifier, texts)
    try:
        checked_proba(classifier, [""])
    except Exception as error:
        raise ValueError(
            f"{name}.predict_proba cannot score the empty text, which an answer may be: {error}"
        ) from error
    alone = np.concatenate([checked_proba(classifier, [text]) for text in texts])
    reverse = checked_proba(classifier, [*texts[::-1], ""])[-2::-1]
    for other in (alone, reverse):
        if np.abs(proba - other).max() > TOLERANCE:
            raise ValueError(
                f"{name}.predict_proba gives a text other probabilities in another batch: "
                "score each text by itself (evaluation mode, no dropout, padding masked)."
            )
    if hasattr(classifier, "predict_proba_at"):
        ended = np.concatenate(proba_at(classifier, texts, [[len(text)] for text in texts]))
        if np.abs(proba - ended).max() > TOLERANCE:
            raise ValueError(f"{name}.predict_proba_at at the end of a text must give what predict_proba gives it.")


def _checked_rows(source: str, proba: object, shape: tuple[int, int]) -> FloatArray:
    if not isinstance(proba, np.ndarray) or not np.issubdtype(proba.dtype, np.floating):
        kind = f"an array of {proba.dtype}" if isinstance(proba, np.ndarray) else f"a {type(proba).__name__}"
        raise ValueError(f"{source} returned {kind}: it must return a NumPy array of floats.")
    if proba.shape != shape:
        raise ValueError(f"{source} returned shape {proba.shape} where {shape} (texts, classes) was expected.")
    rows: FloatArray = proba.astype(np.float64)
    if not np.isfinite(rows).all():
        row = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise ValueError(f"{source} returned NaN or inf in row {row}: every entry must be a probability.")
    if (rows < 0).any():
        row = int(np.argmax((rows < 0).any(axis=1)))
        raise ValueError(f"{source} returned a negative entry ({rows[row].min():.4g}) in row {row}: apply a softmax.")
    sums = rows.sum(axis=1)
    if (np.abs(sums - 1) > TOLERANCE).any():
        row = int(np.argmax(np.abs(sums - 1)))
        raise ValueError(f"{source} returned row {row} that sums to {sums[row]:.4f}, not to 1: normalise every row.")
    return rows
