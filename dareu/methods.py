"""The unlearning methods by name: an open dict; add an entry to add a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dareu.losses import graddiff, npo
from dareu.trainers import DareUConfig, DareUTrainer, UnlearnConfig, UnlearnTrainer


class Method(NamedTuple):
    """How a method trains."""

    trainer: type[Any]
    """Built as `trainer(model, loss or rewards, args, train_dataset, retain_dataset=…, mask=…, …)`."""
    config: type[Any]
    """Its options, a `TrainingArguments` dataclass with `UnlearningArguments`."""
    loss: Callable[..., Any] | None = None
    """Its forget loss; None where the forget signal is a reward."""


METHODS: dict[str, Method] = {
    "dareu": Method(DareUTrainer, DareUConfig),
    "graddiff": Method(UnlearnTrainer, UnlearnConfig, graddiff),
    "npo": Method(UnlearnTrainer, UnlearnConfig, npo),
}
