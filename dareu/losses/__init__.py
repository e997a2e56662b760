"""Forget losses: pure functions of the tensors that they name as parameters."""

from dareu.losses.dpo import dpo
from dareu.losses.finetune_retain import finetune_retain
from dareu.losses.gradient_ascent import gradient_ascent
from dareu.losses.idk import idk
from dareu.losses.npo import npo
from dareu.losses.satimp import satimp
from dareu.losses.simnpo import simnpo
from dareu.losses.undial import undial
from dareu.losses.wga import wga

__all__ = ["dpo", "finetune_retain", "gradient_ascent", "idk", "npo", "satimp", "simnpo", "undial", "wga"]
