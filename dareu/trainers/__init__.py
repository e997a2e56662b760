"""Trainers: fine-tuning, DareU and loss-based unlearning."""

from dareu.trainers.dareu_config import DareUConfig
from dareu.trainers.dareu_trainer import DareUTrainer
from dareu.trainers.finetune import FinetuneConfig, FinetuneTrainer
from dareu.trainers.unlearn_trainer import UnlearnConfig, UnlearnTrainer

__all__ = [
    "DareUConfig",
    "DareUTrainer",
    "FinetuneConfig",
    "FinetuneTrainer",
    "UnlearnConfig",
    "UnlearnTrainer",
]
