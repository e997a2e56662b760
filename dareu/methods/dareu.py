"""DareU: de-attribution by reinforcement learning; see `dareu.trainers.rl`."""

from dareu.methods._method import Method
from dareu.trainers import DareUConfig, DareUTrainer

DAREU = Method(DareUTrainer, DareUConfig)
