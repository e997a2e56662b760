"""Forget losses: pure functions of the tensors that they name as parameters."""

from dareu.losses.graddiff import graddiff
from dareu.losses.npo import npo

__all__ = ["graddiff", "npo"]
