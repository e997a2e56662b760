"""Text to P(owner): classifiers that follow scikit-learn's contract, and the checks that hold them to it."""

from collections.abc import Callable
from typing import Any

from dareu.classifiers.contract import (
    NONE_CLASS,
    Classifier,
    check_classifier,
    checked_proba,
    class_names,
    owner_columns,
    proba_at,
)
from dareu.classifiers.echo import strip_echo, strip_echo_at
from dareu.classifiers.llm import LLMClassifier
from dareu.classifiers.loading import load_classifier
from dareu.classifiers.quality import quality_card
from dareu.classifiers.sequence import SequenceClassifier
from dareu.classifiers.skops_files import save_skops
from dareu.classifiers.tfidf import TfidfClassifier

__all__ = [
    "CLASSIFIERS",
    "NONE_CLASS",
    "Classifier",
    "LLMClassifier",
    "SequenceClassifier",
    "TfidfClassifier",
    "check_classifier",
    "checked_proba",
    "class_names",
    "load_classifier",
    "owner_columns",
    "proba_at",
    "quality_card",
    "save_skops",
    "strip_echo",
    "strip_echo_at",
]

#: What makes a classifier with `fit(texts, owners)`, by name: an open dict. Where it takes a `seed`, it is given the
#: run's; where it cannot do without a `model`, the shipped base.
CLASSIFIERS: dict[str, Callable[..., Any]] = {"llm": LLMClassifier, "tfidf": TfidfClassifier}
