"""The control that only goes on learning what is retained."""

from __future__ import annotations

import torch
from torch import Tensor

from dareu.methods._method import Method
from dareu.trainers import UnlearnConfig, UnlearnTrainer


def finetune_retain() -> Tensor:
    """No forget loss at all: 0, so that the retain term alone trains the model.

    What fine-tuning on retained records forgets by itself is the least that a method has to surpass.
    """
    return torch.zeros(())


FINETUNE_RETAIN = Method(UnlearnTrainer, UnlearnConfig, finetune_retain, {"retain_loss": "nll", "retain_coef": 1.0})
