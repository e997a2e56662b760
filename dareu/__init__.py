"""Makes a language model forget whose data it was trained on, by reinforcement learning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dareu.data import forget_retain_split, load_records
    from dareu.deltas import merge_models
    from dareu.masks import MaskedAdamW, WeightMask
    from dareu.methods import METHODS
    from dareu.metrics import measure
    from dareu.models import load_model, load_tokenizer
    from dareu.rewards import DeattributionReward, FluencyReward
    from dareu.trainers import DareUConfig, DareUTrainer, UnlearnConfig, UnlearnTrainer

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "DareUConfig",
    "DareUTrainer",
    "DeattributionReward",
    "FluencyReward",
    "MaskedAdamW",
    "UnlearnConfig",
    "UnlearnTrainer",
    "WeightMask",
    "forget_retain_split",
    "load_model",
    "load_records",
    "load_tokenizer",
    "measure",
    "merge_models",
]

#: The room of each name; it is imported when the name is first asked for, since most take torch along.
_ROOMS = {
    "data": ("forget_retain_split", "load_records"),
    "deltas": ("merge_models",),
    "masks": ("MaskedAdamW", "WeightMask"),
    "methods": ("METHODS",),
    "metrics": ("measure",),
    "models": ("load_model", "load_tokenizer"),
    "rewards": ("DeattributionReward", "FluencyReward"),
    "trainers": ("DareUConfig", "DareUTrainer", "UnlearnConfig", "UnlearnTrainer"),
}


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
