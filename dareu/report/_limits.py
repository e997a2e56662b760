"""What a page does not show: said beside what it does."""

from __future__ import annotations

from dareu.report._gather import Family
from dareu.report._models import Model


def limits(family: Family) -> list[str]:
    """Sentences about what the numbers of a family leave open, the weightiest first."""
    found = [*map(str, family.request.get("weaker") or ()), *_controls(family)]
    measured = [model for model in family.unlearned if model.measured is not None]
    if not measured:
        return found
    found += [_attacks(measured), _answers(measured), _rows(measured)]
    if any("fact_recall" in model.numbers for model in measured):
        found.append("A fact is found in the words of the list only: the same fact in other words is not.")
    found += _left_out(measured)
    return found


def _controls(family: Family) -> list[str]:
    if family.retrained is not None and family.retrained.measured is not None:
        return []
    without = "No model that was retrained without the owners was measured, so that nothing here shows that this one "
    without += "is as if it had never seen them."
    if family.base is not None and family.base.measured is not None:
        without += " It is read beside the base model, which has learnt nothing of the retained owners either."
    return [without]


def _attacks(models: list[Model]) -> str:
    missing = [model.name for model in models if model.audits is None]
    if not missing:
        return "Attacks were made as listed; another one may still bring back what was forgotten."
    who = "the model" if len(models) == 1 else ", ".join(missing) if len(missing) < len(models) else "any of the models"
    verb = "Nobody attacked" if len(missing) == len(models) else "Not attacked:"
    means = "other words, many samples, rounding the weights or training on"
    return f"{verb} {who}: {means} may bring back what is no longer said."


def _answers(models: list[Model]) -> str:
    sampled = any("sampled_facts" in model.numbers for model in models)
    greedy = "The answers shown are the likeliest ones, one a question"
    if sampled:
        return f"{greedy}; of answers drawn at random only the numbers are kept, and nothing is known of more draws."
    return f"{greedy}: answers drawn at random were not looked at, and may tell more."


def _rows(models: list[Model]) -> str:
    counts = dict.fromkeys(_counted(model) for model in models)
    return (
        f"Measured were {' or '.join(counts)}. Intervals hold for other rows of this kind, and are too narrow where "
        "rows of one owner are alike."
    )


def _counted(model: Model) -> str:
    assert model.measured is not None
    prompts = model.measured.get("prompts") or {}
    names = {"forget": "to forget", "retain": "retained", "test": "that no model was trained on"}
    return ", ".join(f"{len(rows):,} rows {names.get(split, split)}" for split, rows in prompts.items()) or "no rows"


def _left_out(models: list[Model]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for model in models:
        assert model.measured is not None
        for name, reason in model.measured["left_out"].items():
            if name not in reasons.setdefault(reason, []):
                reasons[reason].append(name)
    return [f"Not measured: {', '.join(names)} ({reason.rstrip('.')})." for reason, names in reasons.items()]
