"""Which attacks a request's result has to stand."""

from __future__ import annotations

from collections.abc import Collection

from dareu.audits import AUDITS

#: Quick ones ask otherwise or change numbers' formats; the full set trains too.
_QUICK = ("paraphrased_prompts", "templated_prompts", "prefilled", "quantisation")

AUDIT_LEVELS = ("quick", "full", "none")


def audits_of(level: str, columns: Collection[str]) -> list[str]:
    """The audits of a level that the rows to forget allow.

    Args:
        level: One of `AUDIT_LEVELS`.
        columns: Of the rows.
    """
    names = {"quick": _QUICK, "full": tuple(AUDITS), "none": ()}[level]
    return [name for name in names if set(AUDITS[name].columns) <= set(columns)]
