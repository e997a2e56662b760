"""What an unlearning method is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Method(NamedTuple):
    """How a method trains."""

    trainer: type[Any]
    """Built as `trainer(model, loss or rewards, args, train_dataset, retain_dataset=…, mask=…, …)`."""
    config: type[Any]
    """Its options, a `TrainingArguments` dataclass with `SharedArguments`."""
    loss: Callable[..., Any] | None = None
    """Its forget loss; None where the forget signal is a reward."""
    defaults: Mapping[str, Any] = MappingProxyType({})
    """Its usual settings where they differ from the defaults of `config`; whoever runs it may give others."""
