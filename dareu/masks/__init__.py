"""Which weights may change: scores, selection, the mask file, and the check that nothing else moved."""

from dareu.masks.controls import RandomScores
from dareu.masks.frozen import count_moved_outside, saved_for
from dareu.masks.optimizer import MaskedAdamW
from dareu.masks.patterns import chosen_parameters
from dareu.masks.scores import SCORES, Score, find_score, score_weights
from dareu.masks.selection import SCOPES, Scope, random_mask, select_top, weight_masks
from dareu.masks.weight_mask import WeightMask
from dareu.masks.weight_scores import WeightScores

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
    "find_score",
    "random_mask",
    "saved_for",
    "score_weights",
    "select_top",
    "weight_masks",
]
