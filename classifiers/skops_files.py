"""Scikit-learn classifiers as skops files: JSON and plain arrays, nothing that runs when it is read."""

from __future__ import annotations

from pathlib import Path

import skops.io

from dareu.classifiers._files import SKOPS_FILE, whole_folder
from dareu.classifiers.contract import Classifier

_TRUSTED_TYPES = (
    "dareu.classifiers.tfidf.TfidfClassifier",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
)
"""What a file may hold beside the types that skops knows to be harmless: these only hold data."""


def save_skops(classifier: Classifier, folder: str | Path) -> None:
    """Writes a fitted scikit-learn classifier (a Pipeline, a calibrated one) into a folder of its own.

    Raises:
        ValueError: the classifier holds types that would not be read again, or `folder` holds something else.
    """
    with whole_folder(folder) as new:
        skops.io.dump(classifier, new / SKOPS_FILE)
        strange = _strange_types(new / SKOPS_FILE)
        if strange:
            name = type(classifier).__name__
            raise ValueError(f"{name} is not saved, for it holds types not known to be harmless: {strange}.")


def load_skops(folder: str | Path) -> Classifier:
    """Reads the `classifier.skops` in `folder`.

    Raises:
        ValueError: there is no such file, or it holds types that are not known to be harmless.
    """
    file = Path(folder) / SKOPS_FILE
    if not file.is_file():
        raise ValueError(f"{folder} holds no {SKOPS_FILE}: give a folder that TfidfClassifier.save wrote.")
    strange = _strange_types(file)
    if strange:
        raise ValueError(f"{file} is not loaded, for it holds types not known to be harmless: {strange}.")
    classifier: Classifier = skops.io.load(file, trusted=list(_TRUSTED_TYPES))
    return classifier


def _strange_types(file: Path) -> list[str]:
    return sorted(set(skops.io.get_untrusted_types(file=file)) - set(_TRUSTED_TYPES))
