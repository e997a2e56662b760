"""The metrics by name: an open dict."""

from __future__ import annotations

from collections.abc import Mapping

from dareu.metrics._answer_words import ANSWER_WORDS
from dareu.metrics._harness import LM_EVAL
from dareu.metrics._metric import Metric
from dareu.metrics.attribution import ATTRIBUTION
from dareu.metrics.facts import FACT_RECALL, NAME_KEPT, SAMPLED_FACTS
from dareu.metrics.fluency import FLUENCY, GIBBERISH
from dareu.metrics.gap import RETRAINING_GAP
from dareu.metrics.likelihood import OPTION_PROBABILITY, PROBABILITY
from dareu.metrics.membership import MIA, MIA_GRADIENT_NORM, MIA_REFERENCE, PRIVLEAK
from dareu.metrics.memorisation import EXACT_MEMORISATION, EXTRACTION_STRENGTH
from dareu.metrics.rouge import ROUGE
from dareu.metrics.tow import TOW
from dareu.metrics.truth_ratio import FORGET_QUALITY, TRUTH_RATIO
from dareu.metrics.utility import MODEL_UTILITY
from dareu.metrics.variety import VARIETY

#: The metrics by name, an open dict.
METRICS: dict[str, Metric] = {
    "retraining_gap": RETRAINING_GAP,
    "gibberish": GIBBERISH,
    "tow": TOW,
    "extraction_strength": EXTRACTION_STRENGTH,
    "exact_memorisation": EXACT_MEMORISATION,
    "rouge": ROUGE,
    "probability": PROBABILITY,
    "option_probability": OPTION_PROBABILITY,
    "truth_ratio": TRUTH_RATIO,
    "forget_quality": FORGET_QUALITY,
    "model_utility": MODEL_UTILITY,
    "mia": MIA,
    "mia_reference": MIA_REFERENCE,
    "mia_gradient_norm": MIA_GRADIENT_NORM,
    "privleak": PRIVLEAK,
    "fact_recall": FACT_RECALL,
    "sampled_facts": SAMPLED_FACTS,
    "name_kept": NAME_KEPT,
    "attribution": ATTRIBUTION,
    "answer_words": ANSWER_WORDS,
    "fluency": FLUENCY,
    "variety": VARIETY,
    "lm_eval": LM_EVAL,
}


def shown_columns(metrics: Mapping[str, Metric] | None = None) -> list[str]:
    """The numbers that tables show, by name, in the order of the metrics.

    Args:
        metrics: By name; default: `METRICS`.
    """
    return [name for metric in (METRICS if metrics is None else metrics).values() for name in metric.columns]
