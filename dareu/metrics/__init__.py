"""The metrics of unlearning by name, an open dict, with one file a family; `measure` computes those that are chosen."""

from dareu.metrics._checks import check_metrics
from dareu.metrics._metric import Metric, shown_columns
from dareu.metrics._offered import AgainstRetrained, OfModel, OfSplit
from dareu.metrics.answer_words import ANSWER_WORDS
from dareu.metrics.attribution import (
    ATTRIBUTION,
    AttributionScores,
    Judge,
    attribution_scores,
    forget_attribution,
    misattribution,
)
from dareu.metrics.facts import FACT_RECALL, NAME_KEPT, fact_recall, facts_beyond_prompt, name_kept
from dareu.metrics.fluency import FLUENCY
from dareu.metrics.generation import generate_answers
from dareu.metrics.likelihood import PROBABILITY, AnswerNLL, answer_nll, probability
from dareu.metrics.measure import Measurement, measure
from dareu.metrics.retrained import against_retrained
from dareu.metrics.rouge import ROUGE, rouge_l_recall
from dareu.metrics.tow import TOW, tow

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
    "fact_recall",
    "facts_beyond_prompt",
    "forget_attribution",
    "generate_answers",
    "measure",
    "misattribution",
    "name_kept",
    "probability",
    "rouge_l_recall",
    "shown_columns",
    "tow",
]

METRICS: dict[str, Metric] = {
    "tow": TOW,
    "rouge": ROUGE,
    "probability": PROBABILITY,
    "fact_recall": FACT_RECALL,
    "name_kept": NAME_KEPT,
    "attribution": ATTRIBUTION,
    "answer_words": ANSWER_WORDS,
    "fluency": FLUENCY,
}
