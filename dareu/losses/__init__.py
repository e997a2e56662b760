"""Forget losses: pure functions of the tensors that they name as parameters."""

from dareu.losses.dpo import dpo
from dareu.losses.finetune_retain import finetune_retain
from dareu.losses.gradient_ascent import gradient_ascent
from dareu.losses.idk import idk
from dareu.losses.npo import npo
from dareu.losses.rmu import control_vector, rmu
from dareu.losses.satimp import satimp
from dareu.losses.scrub import scrub, scrub_retain
from dareu.losses.simnpo import simnpo
from dareu.losses.task_vector import negated, task_vector
from dareu.losses.undial import undial
from dareu.losses.wga import wga

__all__ = [
    "control_vector",
    "dpo",
    "finetune_retain",
    "gradient_ascent",
    "idk",
    "negated",
    "npo",
    "rmu",
    "satimp",
    "scrub",
    "scrub_retain",
    "simnpo",
    "task_vector",
    "undial",
    "wga",
]
