"""Trainers: fine-tuning, DareU and loss-based unlearning."""

from dareu.trainers.finetune import FinetuneConfig, FinetuneTrainer
from dareu.trainers.loss_based import UnlearnConfig, UnlearnTrainer
from dareu.trainers.rl.config import DareUConfig
from dareu.trainers.rl.trainer import DareUTrainer

__all__ = [
    "DareUConfig",
    "DareUTrainer",
    "FinetuneConfig",
    "FinetuneTrainer",
    "UnlearnConfig",
    "UnlearnTrainer",
]
