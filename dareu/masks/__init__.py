"""Which weights may change: scores, selection, the mask file, and the check that nothing else moved."""

from dareu.masks.frozen import CheckpointWeights, count_moved_outside
from dareu.masks.scores import WagleScores, wagle_scores
from dareu.masks.selection import random_mask, select_top
from dareu.masks.weight_mask import WeightMask, fingerprint

__all__ = [
    "CheckpointWeights",
    "WagleScores",
    "WeightMask",
    "count_moved_outside",
    "fingerprint",
    "random_mask",
    "select_top",
    "wagle_scores",
]
