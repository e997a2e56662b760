"""Looks at the options of a recipe without running it, for whoever plans to."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dareu.audits import check_audits
from dareu.data.parts import DataArguments
from dareu.files import write_yaml
from dareu.methods import find_method
from dareu.options.attribute_weights import MaskArguments
from dareu.options.audit import AuditArguments
from dareu.options.finetune import FinetuneArguments
from dareu.options.measure import MeasureArguments, chosen_metrics
from dareu.options.parsing import OptionParser
from dareu.options.spunge import SpungeArguments
from dareu.options.train_classifier import ClassifierArguments, find_classifier
from dareu.options.unlearn import as_options, check_unlearning, unlearn_parser
from dareu.trainers import FinetuneConfig
from dareu.values import as_mapping

_PARSED: dict[str, list[Any]] = {
    "finetune": [DataArguments, FinetuneArguments, FinetuneConfig],
    "train_classifier": [DataArguments, ClassifierArguments],
    "attribute_weights": [DataArguments, MaskArguments],
    "measure": [DataArguments, MeasureArguments],
    "audit": [DataArguments, AuditArguments],
}


def check_recipe(
    recipe: str,
    options: Mapping[str, Any],
    rewards: Mapping[str, Callable[..., Any]],
    classifiers: Mapping[str, Callable[..., Any]],
) -> list[Any]:
    """The dataclasses that a recipe makes of its options.

    Args:
        recipe: `finetune`, `train_classifier`, `attribute_weights`, `unlearn`, `spunge`, `measure` or `audit`.
        options: As in its YAML.
        rewards: The built-in rewards by name.
        classifiers: The built-in classifiers by name.

    Raises:
        ValueError: What the recipe would say of them, as far as it can be told without models and data.
    """
    more = [SpungeArguments] if recipe == "spunge" else []
    unlearns = recipe in ("unlearn", "spunge")
    parser = unlearn_parser(find_method(str(options["method"])), *more) if unlearns else OptionParser(_PARSED[recipe])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _environment_kept():
        warnings.simplefilter("ignore")  # the recipe itself gives them
        write_yaml(Path(folder) / "config.yaml", options)
        parsed = list(parser.parse_args_and_config(["--config", str(Path(folder) / "config.yaml")]))
    for part in parsed:
        if isinstance(part, MeasureArguments):
            chosen_metrics(part)
        if isinstance(part, AuditArguments):
            check_audits(part.chosen(), as_mapping("audit_kwargs", part.audit_kwargs), ())
        if isinstance(part, ClassifierArguments):
            find_classifier(part, classifiers)
    if unlearns:
        check_unlearning(as_options(parsed, len(more))[0], rewards)
    return parsed


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Takes back what the block sets, changes or drops in the environment, and touches no other variable.

    Options of training speak to accelerate through the environment.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in before.keys() | os.environ.keys():
            if name not in before:
                del os.environ[name]
            elif os.environ.get(name) != before[name]:
                os.environ[name] = before[name]
