"""The unlearning methods by name: an open dict; add an entry to add a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dareu.losses import (
    dpo,
    finetune_retain,
    gradient_ascent,
    idk,
    npo,
    rmu,
    satimp,
    scrub,
    simnpo,
    task_vector,
    undial,
    wga,
)
from dareu.trainers import (
    DareUConfig,
    DareUTrainer,
    RMUConfig,
    RMUTrainer,
    ScrubConfig,
    ScrubTrainer,
    TaskVectorConfig,
    TaskVectorTrainer,
    UnlearnConfig,
    UnlearnTrainer,
)


class Method(NamedTuple):
    """How a method trains."""

    trainer: type[Any]
    """Built as `trainer(model, loss or rewards, args, train_dataset, retain_dataset=…, mask=…, …)`."""
    config: type[Any]
    """Its options, a `TrainingArguments` dataclass with `UnlearningArguments`."""
    loss: Callable[..., Any] | None = None
    """Its forget loss; None where the forget signal is a reward."""
    defaults: Mapping[str, Any] = MappingProxyType({})
    """Its usual settings where they differ from the defaults of `config`; whoever runs it may give others."""


_NLL = {"retain_loss": "nll", "retain_coef": 1.0}

METHODS: dict[str, Method] = {
    "dareu": Method(DareUTrainer, DareUConfig),
    "dpo": Method(UnlearnTrainer, UnlearnConfig, dpo),
    "finetune_retain": Method(UnlearnTrainer, UnlearnConfig, finetune_retain, _NLL),
    "ga": Method(UnlearnTrainer, UnlearnConfig, gradient_ascent, {"retain_loss": "none"}),
    "graddiff": Method(UnlearnTrainer, UnlearnConfig, gradient_ascent, _NLL),
    "idk": Method(UnlearnTrainer, UnlearnConfig, idk, _NLL),
    "kl_min": Method(UnlearnTrainer, UnlearnConfig, gradient_ascent, {"retain_loss": "kl", "retain_coef": 1.0}),
    "npo": Method(UnlearnTrainer, UnlearnConfig, npo),
    "rmu": Method(RMUTrainer, RMUConfig, rmu),
    "satimp": Method(UnlearnTrainer, UnlearnConfig, satimp, _NLL | {"forget_coef": 0.1}),
    "scrub": Method(ScrubTrainer, ScrubConfig, scrub),
    "simnpo": Method(UnlearnTrainer, UnlearnConfig, simnpo, _NLL | {"forget_coef": 0.125}),
    "task_vector": Method(TaskVectorTrainer, TaskVectorConfig, task_vector),
    "undial": Method(UnlearnTrainer, UnlearnConfig, undial, {"learning_rate": 1e-4}),
    "wga": Method(UnlearnTrainer, UnlearnConfig, wga),
}
