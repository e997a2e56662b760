"""How a run went: its log as lines over updates, and which update it ended with."""

from __future__ import annotations

from typing import NamedTuple

from dareu.report._models import Model
from dareu.report._svg import Chart, line_chart

#: Charts by title: names in the log, and what the page calls them.
_CHARTS: dict[str, dict[str, str]] = {
    "Reward": {"reward": "reward"},
    "Attribution to the owners": {
        "forget_attribution": "in training, by the reward's classifier",
        "validation/forget_attribution": "by the validation judge",
    },
    "Drift on retained rows": {
        "retain_kl": "retain KL, nats a token",
        "retain_loss": "retain loss",
    },
    "Validation": {
        "validation/gap": "gap",
        "validation/fact_recall": "facts stated",
        "validation/forget_probability": "probability, to forget",
        "validation/retain_rouge": "ROUGE, retained",
        "validation/name_kept": "names kept",
        "validation/gibberish": "gibberish",
    },
    "Surprise of the base model, nats": {
        "fluency_nll": "in training",
        "validation/fluency_nll": "validation",
    },
    "Loss": {"loss": "loss"},
}


class Curves(NamedTuple):
    """The charts of one run."""

    name: str
    charts: list[Chart]
    ended: str
    """Where it stopped, and which update was kept, in a sentence; empty where nothing is known."""
    names: list[str]
    """The columns of the numbers behind the charts."""
    lines: list[tuple[int, list[str]]]
    """The numbers behind them: an update, and a text a column."""


def curves(model: Model) -> Curves | None:
    """The charts of a model's training; None where nothing was logged."""
    log = model.training
    charts, shown = [], []
    marks = _marks(model)
    for title, names in _CHARTS.items():
        series = {}
        for name, words in names.items():
            line = [(e["step"], float(e[name])) for e in log if isinstance(e.get(name), int | float)]
            if line:
                series[words] = line
                shown.append((f"{title}: {words}" if len(names) > 1 else title, name))
        if series:
            charts.append(line_chart(title, series, marks))
    evaluated = sorted({name for entry in log for name in entry if name.startswith("eval_") and name != "eval_runtime"})
    shown += [(name, name) for name in evaluated]
    if not shown:
        return None
    lines = [
        (e["step"], [_number(e.get(name)) for _, name in shown]) for e in log if any(name in e for _, name in shown)
    ]
    return Curves(model.name, charts, _ended(model), [words for words, _ in shown], lines)


def _marks(model: Model) -> list[tuple[float, str]]:
    numbers = model.numbers
    return [(numbers[name], word) for name, word in (("best_update", "kept"), ("updates", "end")) if name in numbers]


def _ended(model: Model) -> str:
    numbers, most = model.numbers, model.config.get("max_steps")
    if "updates" not in numbers:
        last = max((entry["step"] for entry in model.training), default=None)
        return "" if last is None else f"It has not ended; its log goes to update {last}."
    updates = numbers["updates"]
    early = f", before the {most} that were allowed" if isinstance(most, int) and 0 < updates < most else ""
    best = numbers.get("best_update")
    kept = (
        "" if best is None else " Kept was the model before training." if not best else f" Kept was update {best:.0f}."
    )
    return f"It stopped at update {updates:.0f}{early}.{kept}"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""
