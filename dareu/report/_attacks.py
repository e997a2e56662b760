"""What audits found of models, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dareu.report._gather import Family
from dareu.runs.audits import leak_scores, robustness_of

_READINGS = {
    "fact_recall": "Facts stated",
    "rouge": "Words of the answers (ROUGE‑L)",
    "extraction_strength": "What follows by heart",
    "probability": "Probability of the gold answers",
}


#: What the strongest attack is known by: what is said, and what follows by heart.
_STRONGEST = {"fact_recall", "extraction_strength"}


class Attack(NamedTuple):
    """One setting of an audit, a text a model and a leak score an unlearned model; empty where there is none."""

    audit: str
    setting: str
    values: list[str]
    leaks: list[str]


class AttackTable(NamedTuple):
    """One reading under all attacks."""

    reading: str
    models: list[str]
    unlearned: list[str]
    """Those that have leak scores; none where no two controls were attacked."""
    attacks: list[Attack]


class Attacks(NamedTuple):
    """All readings of a family's audits."""

    tables: list[AttackTable]
    robustness: list[tuple[str, dict[str, float]]]
    left_out: list[str]
    strongest: dict[str, tuple[str, float]]
    """By model, the attack with the highest leak score of `_STRONGEST`, and that score."""


def attacks(family: Family) -> Attacks | None:
    """What was found of a family's models; None where none was audited."""
    models = [model for model in family.models if model.audits is not None]
    if not any(model.role == "unlearned" for model in models):
        return None
    target, control = (
        None if model is None or model.audits is None else model.audits for model in (family.target, family.retrained)
    )
    leaking, robustness = {}, []
    for model in models:
        if model.role == "unlearned" and model.audits is not None:
            if target is not None and control is not None:
                leaking[model.name] = leak_scores(model.audits, target, control)
            if control is not None and (numbers := robustness_of(model.audits, control)):
                robustness.append((model.name, numbers))
    stored = {model.name: model.audits["audits"] for model in models if model.audits is not None}
    settings = dict.fromkeys(
        (audit, setting) for of in stored.values() for audit, each in of.items() for setting in each["readings"]
    )
    tables = []
    for reading, words in _READINGS.items():
        lines = []
        for audit, setting in settings:
            found = [
                of[audit]["readings"].get(setting, {}).get(reading) if audit in of else None for of in stored.values()
            ]
            leaks = [of.get(audit, {}).get(setting, {}).get(reading) for of in leaking.values()]
            if any(value is not None for value in found):
                lines.append(Attack(audit.replace("_", " "), setting, _texts(found, ".2f"), _texts(leaks, "+.2f")))
        if lines:
            tables.append(AttackTable(words, list(stored), list(leaking), lines))
    left_out = [
        f"{name.replace('_', ' ')} of {model.name} was not made: {reason}"
        for model in models
        if model.audits is not None
        for name, reason in model.audits.get("left_out", {}).items()
    ]
    strongest = {
        name: max(_leaks(of_model), key=lambda each: each[1])
        for name, of_model in leaking.items()
        if any(_leaks(of_model))
    }
    return Attacks(tables, robustness, left_out, strongest)


def _leaks(of_model: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[tuple[str, float]]:
    """Every attack on a model with its leak scores."""
    for audit, of_audit in of_model.items():
        for setting, of_setting in of_audit.items():
            for reading in _STRONGEST.intersection(of_setting) if audit != "unattacked" else ():
                yield ", ".join(filter(None, (audit.replace("_", " "), setting))), of_setting[reading]


def _texts(values: list[float | None], form: str) -> list[str]:
    return ["" if value is None else format(value, form) for value in values]
