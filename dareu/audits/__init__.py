"""Attacks that try to bring back what a model forgot, by name: an open dict, with one file a family."""

from dareu.audits._audit import Audit, NotPossible, Readings
from dareu.audits._known import AUDITS
from dareu.audits._reader import Reader
from dareu.audits._subject import Subject
from dareu.audits._weights import linear_layers, restored
from dareu.audits.auditing import Attacked, check_audits, run_audit
from dareu.audits.leaks import leak_score, robustness
from dareu.audits.quantisation import round_to_bits

__all__ = [
    "AUDITS",
    "Attacked",
    "Audit",
    "NotPossible",
    "Reader",
    "Readings",
    "Subject",
    "check_audits",
    "leak_score",
    "linear_layers",
    "restored",
    "robustness",
    "round_to_bits",
    "run_audit",
]
