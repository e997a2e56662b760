"""What reward classifier and judges of a request are trained on: rows, or wordings, that they do not share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datasets import Dataset

#: Parameters from which on a classifier's backbone is trained through LoRA.
_LARGE = 50_000_000
_BACKGROUND_ROWS = 400


class Judging(NamedTuple):
    """How the three are trained."""

    options: dict[str, dict[str, Any]]
    """By role, what is said to `dareu train_classifier` beside the data and the reward's model."""
    weaker: list[str]
    """What the rows do not allow, a sentence each."""


def judging(rows: Dataset, owners: Sequence[str]) -> Judging:
    """How classifier and judges are trained: a language model with a head, naive Bayes, logistic regression.

    Where the rows have their answers in other words (columns `paraphrase` and `restatement`), the classifier reads the
    answers and the judges these, each half of them where there is one such column. Elsewhere the classifier reads half
    of each owner's answers, and each judge a quarter.

    Args:
        rows: Of all owners.
        owners: Those to forget.
    """
    validation: dict[str, Any] = {"classifier": "tfidf", "classifier_kwargs": {"estimator": "naive_bayes"}}
    options: dict[str, dict[str, Any]] = {
        "classifier": {"classifier": "llm"},
        "validation_judge": validation,
        "test_judge": {"classifier": "tfidf"},
    }
    for role in options:
        options[role] |= {"max_background_rows": _BACKGROUND_ROWS}
    others = [column for column in ("restatement", "paraphrase") if _is_whole(rows, column, owners)]
    if len(others) == 2:
        options["validation_judge"] |= {"text_columns": others[:1], "fallback_column": "completion"}
        options["test_judge"] |= {"text_columns": others[1:], "fallback_column": "completion"}
        return Judging(options, [])
    counts = Counter(rows["owner"])
    fewest = min(counts[owner] for owner in owners)
    if others and fewest >= 2:
        for role, fold in (("validation_judge", "0/2"), ("test_judge", "1/2")):
            options[role] |= {"text_columns": others, "fallback_column": "completion", "fold": fold}
        return Judging(options, [])
    if not others and fewest >= 4:
        for role, fold in (("classifier", "0/2"), ("validation_judge", "1/4"), ("test_judge", "3/4")):
            options[role] |= {"fold": fold}
        missing = (
            "The rows have no answers in other words (a column paraphrase): the reward's classifier knows half of each "
            "owner's answers, and each judge a quarter."
        )
        return Judging(options, [missing])
    shared = (
        f"An owner to forget has {fewest} row{'s' * (fewest > 1)}, too few to share out: the judges have read the same "
        "answers as the reward's classifier, and may be deceived as it is."
    )
    return Judging(options, [shared])


def backbone_options(model: str, num_parameters: int) -> dict[str, Any]:
    """The reward classifier's options: its model, of which a small one is trained whole."""
    if num_parameters >= _LARGE:
        return {"model": model, "learning_rate": 3e-4, "num_epochs": 3}
    return {"model": model, "lora": False, "learning_rate": 1e-3, "num_epochs": 8}


def _is_whole(rows: Dataset, column: str, owners: Sequence[str]) -> bool:
    """Whether every row of those owners has a text in the column."""
    if column not in rows.column_names:
        return False
    asked = set(owners)
    return all(text for text, owner in zip(rows[column], rows["owner"], strict=True) if owner in asked)
