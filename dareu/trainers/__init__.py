"""Trainers: fine-tuning, DareU and loss-based unlearning."""

from dareu.trainers.dareu_config import DareUConfig
from dareu.trainers.dareu_trainer import DareUTrainer
from dareu.trainers.finetune import FinetuneConfig, FinetuneTrainer
from dareu.trainers.rmu import RMUConfig, RMUTrainer
from dareu.trainers.scrub import ScrubConfig, ScrubTrainer
from dareu.trainers.task_vector import TaskVectorConfig, TaskVectorTrainer
from dareu.trainers.unlearn_trainer import UnlearnConfig, UnlearnTrainer

__all__ = [
    "DareUConfig",
    "DareUTrainer",
    "FinetuneConfig",
    "FinetuneTrainer",
    "RMUConfig",
    "RMUTrainer",
    "ScrubConfig",
    "ScrubTrainer",
    "TaskVectorConfig",
    "TaskVectorTrainer",
    "UnlearnConfig",
    "UnlearnTrainer",
]
