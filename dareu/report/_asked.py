"""What was asked of a family of models, and what is missing of it."""

from __future__ import annotations

from typing import Any

from dareu.report._gather import Family


def asked(family: Family) -> list[tuple[str, str]]:
    """What was asked: of the request, or where there is none of the run's config."""
    request, run = family.request, family.unlearned[0] if family.unlearned else None
    config = {} if run is None else run.config
    rows = request.get("rows") or {}
    named = ((request.get("models") or {}).get("target") or {}).get("model")
    found = {
        "To forget": ", ".join(family.owners),
        "Forgotten before": ", ".join(map(str, request.get("earlier_owners") or ())),
        "Data": str(request.get("dataset") or config.get("dataset") or ""),
        "Rows": ", ".join(
            f"{rows[name]:,} {words}" for name, words in _ROWS.items() if isinstance(rows.get(name), int)
        ),
        "Method": str(request.get("method") or ", ".join(model.name for model in family.unlearned)),
        "Trained": _trained(family, config),
        "Learning rate": _learning_rate(request, config),
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


def _learning_rate(request: dict[str, Any], config: dict[str, Any]) -> str:
    rate = request.get("learning_rate", config.get("learning_rate"))
    tried = [trial for trial in request.get("trials") or () if isinstance(trial, dict)]
    text = "" if rate is None else f"{rate:g}" if isinstance(rate, int | float) else str(rate)
    gaps = ", ".join(
        f"{trial['learning_rate']:g} (gap {trial['gap']:.3f})"
        if isinstance(trial.get("gap"), int | float)
        else f"{trial['learning_rate']:g}"
        for trial in tried
        if isinstance(trial.get("learning_rate"), int | float)
    )
    return f"{text}, of {gaps}" if text and gaps else text


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
