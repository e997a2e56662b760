"""Which weights may change: scores, selection, the mask file, and the check that nothing else moved."""

from dareu.masks.controls import SCORES, RandomScores, Score, score_weights, wanda_scores
from dareu.masks.frozen import count_moved_outside
from dareu.masks.optimizer import MaskedAdamW
from dareu.masks.patterns import chosen_parameters
from dareu.masks.scores import WeightScores, wagle_scores
from dareu.masks.selection import SCOPES, Scope, random_mask, select_top, weight_masks
from dareu.masks.weight_mask import WeightMask

__all__ = [
    "SCOPES",
    "SCORES",
    "MaskedAdamW",
    "RandomScores",
    "Scope",
    "Score",
    "WeightMask",
    "WeightScores",
    "chosen_parameters",
    "count_moved_outside",
    "random_mask",
    "score_weights",
    "select_top",
    "wagle_scores",
    "wanda_scores",
    "weight_masks",
]
