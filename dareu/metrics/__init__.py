"""The metrics of unlearning by name, an open dict, with one file a family; `measure` computes those that are chosen."""

from dareu.metrics._checks import NEED_BASE, check_metrics, compares
from dareu.metrics._intervals import Estimate, auc_estimate
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
from dareu.metrics.kept import Kept
from dareu.metrics.leaking import leak_at_k
from dareu.metrics.likelihood import AnswerNLL, answer_nll, choice_accuracy, option_probability, probability
from dareu.metrics.measure import Measurement, measure
from dareu.metrics.membership import (
    gradient_norms,
    loss_score,
    min_k_plus_plus_score,
    min_k_score,
    privleak,
    zlib_score,
)
from dareu.metrics.memorisation import exact_memorisation, extraction_strength
from dareu.metrics.retrained import against_retrained
from dareu.metrics.rouge import rouge_l_f1, rouge_l_recall
from dareu.metrics.token_scores import TokenScores, token_scores
from dareu.metrics.tow import tow
from dareu.metrics.truth_ratio import forget_quality, forgotten_share, known_share, truth_ratio
from dareu.metrics.utility import model_utility
from dareu.metrics.variety import distinct, repetition

__all__ = [
    "METRICS",
    "NEED_BASE",
    "AgainstRetrained",
    "AnswerNLL",
    "AttributionScores",
    "Estimate",
    "Judge",
    "Kept",
    "Measurement",
    "Metric",
    "OfModel",
    "OfSplit",
    "TokenScores",
    "against_retrained",
    "answer_nll",
    "attribution_scores",
    "auc_estimate",
    "check_metrics",
    "choice_accuracy",
    "compares",
    "distinct",
    "exact_memorisation",
    "extraction_strength",
    "fact_recall",
    "facts_beyond_prompt",
    "facts_in_any",
    "forget_attribution",
    "forget_quality",
    "forgotten_share",
    "generate_answers",
    "gibberish",
    "gradient_norms",
    "known_share",
    "leak_at_k",
    "loss_score",
    "measure",
    "min_k_plus_plus_score",
    "min_k_score",
    "misattribution",
    "model_utility",
    "name_kept",
    "option_probability",
    "privleak",
    "probability",
    "repetition",
    "retraining_gap",
    "rouge_l_f1",
    "rouge_l_recall",
    "sample_answers",
    "sampled_fact_recall",
    "shown_columns",
    "token_scores",
    "tow",
    "truth_ratio",
    "zlib_score",
]
