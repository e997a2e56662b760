"""Looks at the options of a recipe without running it, for whoever plans to."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trl import TrlParser

from dareu.data.parts import DataArguments
from dareu.files import write_yaml
from dareu.methods import METHODS
from dareu.options.attribute_weights import MaskArguments
from dareu.options.finetune import FinetuneArguments
from dareu.options.measure import MeasureArguments
from dareu.options.spunge import SpungeArguments
from dareu.options.train_classifier import ClassifierArguments
from dareu.options.unlearn import RewardArguments, UnlearnArguments, check_unlearning, unlearn_parser
from dareu.plugins import resolve
from dareu.trainers import FinetuneConfig
from dareu.trainers.shared import SharedArguments

_PARSED: dict[str, list[Any]] = {
    "finetune": [DataArguments, FinetuneArguments, FinetuneConfig],
    "train_classifier": [DataArguments, ClassifierArguments],
    "attribute_weights": [DataArguments, MaskArguments],
    "measure": [DataArguments, MeasureArguments],
}


def check_recipe(recipe: str, options: Mapping[str, Any]) -> list[Any]:
    """The dataclasses that a recipe makes of its options.

    Args:
        recipe: `finetune`, `train_classifier`, `attribute_weights`, `unlearn`, `spunge` or `measure`.
        options: As in its YAML.

    Raises:
        ValueError: What the recipe would say of them, as far as it can be told without models and data.
    """
    method = resolve(str(options["method"]), METHODS) if recipe in ("unlearn", "spunge") else None
    if method is None:
        parser = TrlParser(_PARSED[recipe])
    else:
        parser = unlearn_parser(method, *([SpungeArguments] if recipe == "spunge" else []))
    environment = dict(os.environ)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the recipe itself gives them
            write_yaml(Path(folder) / "config.yaml", options)
            parsed = list(parser.parse_args_and_config(["--config", str(Path(folder) / "config.yaml")]))
    finally:  # options of training speak to accelerate through the environment
        os.environ.clear()
        os.environ.update(environment)
    if method is not None:

        def found(kind: type[Any]) -> Any:
            return next((part for part in parsed if isinstance(part, kind)), None)

        check_unlearning(method, found(UnlearnArguments), found(SharedArguments), found(RewardArguments))
    return parsed
