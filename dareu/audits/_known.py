"""The audits by name: an open dict."""

from __future__ import annotations

from dareu.audits._audit import Audit
from dareu.audits._decoding import BEST_OF_N, PREFILLED, UNATTACKED
from dareu.audits._prompting import ALIASES, FEW_SHOT, PARAPHRASED_PROMPTS, TEMPLATED_PROMPTS
from dareu.audits._pruning import PRUNING
from dareu.audits._relearning import LORA_RELEARNING, RELEARNING
from dareu.audits.quantisation import QUANTISATION

#: The audits by name, an open dict.
AUDITS: dict[str, Audit] = {
    "unattacked": UNATTACKED,
    "paraphrased_prompts": PARAPHRASED_PROMPTS,
    "templated_prompts": TEMPLATED_PROMPTS,
    "aliases": ALIASES,
    "few_shot": FEW_SHOT,
    "best_of_n": BEST_OF_N,
    "prefilled": PREFILLED,
    "quantisation": QUANTISATION,
    "pruning": PRUNING,
    "relearning": RELEARNING,
    "lora_relearning": LORA_RELEARNING,
}
