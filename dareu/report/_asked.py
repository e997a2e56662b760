"""What was asked of a family of models, and what is missing of it."""

from __future__ import annotations

from typing import Any

from dareu.report._gather import Family
from dareu.report._models import Model


def asked(family: Family) -> list[tuple[str, str]]:
    """What was asked: of the request, or where there is none of the run's config."""
    request, runs = family.request, family.unlearned
    config = runs[0].config if runs else {}
    rows = request.get("rows") or {}
    named = ((request.get("models") or {}).get("target") or {}).get("model")
    found = {
        "To forget": ", ".join(family.owners),
        "Forgotten before": ", ".join(map(str, request.get("earlier_owners") or ())),
        "Data": str(request.get("dataset") or config.get("dataset") or ""),
        "Rows": ", ".join(
            f"{rows[name]:,} {words}" for name, words in _ROWS.items() if isinstance(rows.get(name), int)
        ),
        "Method": str(request.get("method") or ", ".join(model.name for model in runs)),
        "Trained": _trained(family, config),
        "Learning rate": _learning_rate(request, runs),
        "Target": str(named or (family.target.folder if family.target else config.get("model_name_or_path")) or ""),
    }
    return [(name, text) for name, text in found.items() if text]


#: Of a request.
_ROWS = {"forget": "to forget", "retain": "retained", "test": "test"}


def _trained(family: Family, config: dict[str, Any]) -> str:
    request = family.request
    if weights := request.get("weights"):
        return " – ".join(filter(None, (str(weights), str(request.get("weights_reason") or ""))))
    if not config or len(family.unlearned) > 1:
        return ""
    return "LoRA" if config.get("use_peft") else "the weights of a mask" if config.get("mask") else "all weights"


def _learning_rate(request: dict[str, Any], runs: list[Model]) -> str:
    """A request's rate, of which trials; or that of the runs, and where they have several, whose each is."""
    rates: dict[str, list[str]] = {}
    for name, config in [("", request)] if "learning_rate" in request else [(run.name, run.config) for run in runs]:
        if (rate := config.get("learning_rate")) is not None:
            rates.setdefault(_number(rate), []).append(name)
    if len(rates) > 1:
        return "; ".join(f"{rate} ({', '.join(names)})" for rate, names in rates.items())
    text = next(iter(rates), "")
    tried = [trial for trial in request.get("trials") or () if isinstance(trial, dict)]
    gaps = ", ".join(
        f"{trial['learning_rate']:g} (gap {trial['gap']:.3f})"
        if isinstance(trial.get("gap"), int | float)
        else f"{trial['learning_rate']:g}"
        for trial in tried
        if isinstance(trial.get("learning_rate"), int | float)
    )
    return f"{text}, of {gaps}" if text and gaps else text


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def missing(family: Family) -> list[str]:
    """Sentences about what is not there yet, or never came."""
    found = []
    if family.request and not family.request.get("done"):
        found.append("The request is under way, or ended early: what stands here is what it has left so far.")
    if not family.unlearned and (family.request or family.target is None):
        found.append("No model has been unlearned yet.")
    for model in family.unlearned:
        if not model.folder.is_dir():
            found.append(f"The folder of {model.name}, {model.folder}, is not there: its answers and log are missing.")
        elif not model.done:
            found.append(f"The run of {model.name} in {model.folder} is under way, or ended early.")
        if model.measured is None:
            found.append(f"{model.name} was not measured: dareu measure --model_name_or_path {model.folder}/model")
    if family.unlearned and family.target is None:
        found.append("The target was not found beside its model, so that nothing is compared with it.")
    elif family.target is not None and family.target.measured is None:
        found.append(f"The target was not measured: dareu measure --model_name_or_path {family.target.folder}/model")
    return found
