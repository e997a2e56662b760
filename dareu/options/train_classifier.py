"""The options of `dareu train_classifier` beside those of the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from dareu.models import BASE_MODEL
from dareu.plugins import needed_parameters, resolve
from dareu.values import PLUGIN, READ, as_list, as_mapping


@dataclass
class ClassifierArguments:
    """What is trained, on which texts."""

    output_dir: str = field(metadata={"help": "The run's folder."})
    classifier: Annotated[str, PLUGIN] = field(
        default="llm",
        metadata={
            "help": "What is trained: a built-in classifier such as llm or tfidf, or what a class or function of your "
            "own makes, as pkg.mod:Name or path/to/file.py:Name."
        },
    )
    classifier_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict, metadata={"help": "Options of the classifier, as YAML or JSON."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the classifier, where it takes one."})
    text_columns: list[str] = field(
        default_factory=lambda: ["completion"], metadata={"help": "Columns whose texts it is trained on."}
    )
    fallback_column: str | None = field(
        default=None,
        metadata={
            "help": "Column whose text stands in for a row that has none in text_columns, as TOFU has paraphrases of "
            "some owners only; default: such rows are left out."
        },
    )
    fold: str | None = field(
        default=None,
        metadata={
            "help": "Train on a part of each owner's rows, and of each background person's, '0/2' for the first of "
            "two; default: all."
        },
    )
    max_background_rows: int | None = field(
        default=None, metadata={"help": "Background rows that stand for 'none', evenly spread; default: all."}
    )
    hide_echo: bool = field(
        default=True,
        metadata={"help": "Train on every text also without the words that its prompt has, as it is asked later."},
    )
    evaluate_on: list[str] | None = field(
        default=None,
        metadata={"help": "Columns for the quality card; default: the rows outside the fold, or the training texts."},
    )

    def __post_init__(self) -> None:
        self.classifier_kwargs = as_mapping("classifier_kwargs", self.classifier_kwargs)
        self.text_columns = as_list(self.text_columns) or []
        self.evaluate_on = as_list(self.evaluate_on)


def find_classifier(
    args: ClassifierArguments, known: Mapping[str, Callable[..., Any]]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What makes the classifier, and its options.

    Where it takes a `seed`, it gets the run's; a built-in one that cannot do without a `model`, the shipped base.

    Args:
        args: The options.
        known: The built-in classifiers by name.

    Raises:
        ValueError: There is none of that name, or it has no such options.
    """
    make, kwargs = resolve(args.classifier, known), dict(as_mapping("classifier_kwargs", args.classifier_kwargs))
    parameters = inspect.signature(make).parameters if callable(make) else {}
    if "seed" in parameters:
        kwargs.setdefault("seed", args.seed)
    if args.classifier in known and "model" in parameters:
        kwargs.setdefault("model", BASE_MODEL)
    needed_parameters(make, (), kwargs, f"The classifier {args.classifier!r}")
    return make, kwargs
