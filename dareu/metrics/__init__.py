"""The metrics of unlearning by name, an open dict, with one file a family; `measure` computes those that are chosen."""

from dareu.metrics._checks import check_metrics, compares
from dareu.metrics._known import METRICS, shown_columns
from dareu.metrics._metric import Metric
from dareu.metrics._offered import AgainstRetrained, OfModel, OfSplit
from dareu.metrics.attribution import (
    AttributionScores,
    Judge,
    attribution_scores,
    forget_attribution,
    misattribution,
)
from dareu.metrics.facts import fact_recall, facts_beyond_prompt, facts_in_any, name_kept, sampled_fact_recall
from dareu.metrics.fluency import gibberish
from dareu.metrics.gap import retraining_gap
from dareu.metrics.generation import generate_answers, sample_answers
from dareu.metrics.likelihood import AnswerNLL, answer_nll, probability
from dareu.metrics.measure import Measurement, measure
from dareu.metrics.retrained import against_retrained
from dareu.metrics.rouge import rouge_l_recall
from dareu.metrics.tow import tow

__all__ = [
    "METRICS",
    "AgainstRetrained",
    "AnswerNLL",
    "AttributionScores",
    "Judge",
    "Measurement",
    "Metric",
    "OfModel",
    "OfSplit",
    "against_retrained",
    "answer_nll",
    "attribution_scores",
    "check_metrics",
    "compares",
    "fact_recall",
    "facts_beyond_prompt",
    "facts_in_any",
    "forget_attribution",
    "generate_answers",
    "gibberish",
    "measure",
    "misattribution",
    "name_kept",
    "probability",
    "retraining_gap",
    "rouge_l_recall",
    "sample_answers",
    "sampled_fact_recall",
    "shown_columns",
    "tow",
]
