"""Measures of unlearning: plain functions, one file a family, and `measure` for all at once."""

from dareu.metrics.attribution import (
    AttributionScores,
    Judge,
    attribution_scores,
    forget_attribution,
    misattribution,
)
from dareu.metrics.facts import fact_recall, facts_beyond_prompt, name_kept
from dareu.metrics.generation import generate_answers
from dareu.metrics.likelihood import AnswerNLL, answer_nll, probability
from dareu.metrics.measure import Measurement, measure
from dareu.metrics.rouge import rouge_l_recall
from dareu.metrics.tow import add_tow, tow

__all__ = [
    "AnswerNLL",
    "AttributionScores",
    "Judge",
    "Measurement",
    "add_tow",
    "answer_nll",
    "attribution_scores",
    "fact_recall",
    "facts_beyond_prompt",
    "forget_attribution",
    "generate_answers",
    "measure",
    "misattribution",
    "name_kept",
    "probability",
    "rouge_l_recall",
    "tow",
]
