"""Tables of numbers: a row a number, a column a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from dareu.metrics import shown_columns
from dareu.report._models import Model
from dareu.report._verdict import TOLD
from dareu.report.table import Summary, shown_digits

#: What a number is, and which way it goes as a model forgets ("down") or keeps ("up"); "" where neither is better.
_WORDS = {
    "retraining_gap": ("Distance from the retrained model", "down"),
    "gibberish": ("Answers that are no language", "down"),
    "gibberish_beside_gold": ("Answers less likely to the base model than true ones", "down"),
    "tow": ("Closeness to the retrained model in words (ToW)", "up"),
    "forget_quality": ("Forget quality (p-value)", "up"),
    "privleak": ("PrivLeak, percent", ""),
    "fact_recall": ("Facts stated, to forget", "down"),
    "retain_fact_recall": ("Facts stated, retained", "up"),
    "sampled_facts": ("Facts stated in sampled answers", "down"),
    "forget_rouge": ("Words of the answers to forget (ROUGE‑L)", "down"),
    "retain_rouge": ("Words of retained answers (ROUGE‑L)", "up"),
    "test_rouge": ("Words of test answers (ROUGE‑L)", ""),
    "forget_probability": ("Probability of the answers to forget", "down"),
    "retain_probability": ("Probability of retained answers", "up"),
    "forget_extraction_strength": ("Answers to forget that follow by heart", "down"),
    "forget_exact_memorisation": ("Tokens to forget known by heart", "down"),
    "name_kept": ("Names kept in answers to forget", "up"),
    "retain_name_kept": ("Names kept in retained answers", "up"),
    "forget_attribution": ("Attribution to the owners, by the reward's classifier", "down"),
    "forget_attribution_stripped": ("The same without the question's words, by the reward's classifier", "down"),
    "forget_attribution_heldout": ("Attribution to the owners, by the test judge", "down"),
    "forget_attribution_heldout_stripped": ("The same without the question's words, by the test judge", "down"),
    "misattribution": ("Attribution to somebody retained", "down"),
    "model_utility": ("Model utility", "up"),
    "mia_min_k": ("Membership inference (Min-K), 0.5 tells nothing", ""),
    "forget_base_nll": ("Surprise of the base model at the answers, nats a token", "down"),
    "updates": ("Updates made", ""),
    "best_update": ("Update that was kept", ""),
    "seconds": ("Seconds of unlearning", ""),
    "moved_outside_mask": ("Weights outside the mask that moved", "down"),
    "peak_memory_mib": ("Peak memory, MiB", ""),
}

#: Numbers whose names hold how many answers were drawn.
_OF_SAMPLES = {
    re.compile(r"any_fact_of_(\d+)"): "Facts stated in any of {} sampled answers",
    re.compile(r"leak_at_(\d+)"): "Chance that one of {} sampled answers states a fact",
}

#: What a number is told of, by how its name begins; the first that fits.
_GROUPS = {
    "The run": ("updates", "best_update", "seconds", "moved_outside_mask", "peak_memory"),
    "Who was not asked for": ("retain_", "test_", "model_utility"),
    "All together": ("retraining_gap", "tow", "gibberish", "forget_quality", "privleak"),
    "The owners to forget": ("",),
}
_ORDER = ("All together", "The owners to forget", "Who was not asked for", "The run")

#: Numbers that the first table shows beside those of `shown_columns`.
_ALSO = ("retain_fact_recall", "test_rouge", "updates", "best_update", "moved_outside_mask", "seconds")

_WHOLE = ("updates", "best_update", "moved_outside_mask")


class Cell(NamedTuple):
    """A number as text, and its interval; both empty where there is none."""

    text: str = ""
    interval: str = ""


class Line(NamedTuple):
    """A number of all models."""

    name: str
    words: str
    """What it is; empty where only its name says so."""
    better: str
    cells: list[Cell]


class Group(NamedTuple):
    """Numbers that are told of the same."""

    title: str
    lines: list[Line]


class NumberTable(NamedTuple):
    """The numbers of models side by side."""

    columns: list[tuple[str, str]]
    """Name and role of each model."""
    main: list[Group]
    more: list[Group]


def number_table(models: Sequence[Model]) -> NumberTable:
    """What tables show of models, and all their other numbers; those that none has are left out."""
    columns = [(model.name, model.role) for model in models]
    shown, others = _split({name for model in models for name in model.numbers})
    main, more = (_grouped([_line(n, [_cell(m, n) for m in models]) for n in names]) for names in (shown, others))
    return NumberTable(columns, main, more)


def summary_table(summaries: Sequence[Summary]) -> NumberTable:
    """The same of methods over their seeds: mean and standard deviation."""
    columns = [(" ".join(filter(None, (s.method, s.mask))), "") for s in summaries]
    names = {name for summary in summaries for row in summary.rows for name in row["metrics"]} | {"seconds"}
    shown, _ = _split(names)
    return NumberTable(columns, _grouped([_line(n, [Cell(s.text(n)) for s in summaries]) for n in shown]), [])


def words_of(name: str) -> str:
    """What a number is, in words where there are any."""
    return _words(name)[0] or name.replace("_", " ")


def _words(name: str) -> tuple[str, str]:
    for pattern, words in _OF_SAMPLES.items():
        if match := pattern.fullmatch(name):
            return words.format(match.group(1)), "down"
    return _WORDS.get(name, ("", ""))


def _grouped(lines: Sequence[Line]) -> list[Group]:
    order = list(TOLD)  # what verdicts are about comes first
    found: dict[str, list[Line]] = {title: [] for title in _ORDER}
    for line in sorted(lines, key=lambda line: order.index(line.name) if line.name in order else len(order)):
        found[next(title for title, begins in _GROUPS.items() if line.name.startswith(begins))].append(line)
    return [Group(title, of) for title, of in found.items() if of]


def _split(names: set[str]) -> tuple[list[str], list[str]]:
    shown = [name for name in dict.fromkeys((*shown_columns(), *_ALSO)) if name in names]
    return shown, sorted(names - set(shown))


def _line(name: str, cells: list[Cell]) -> Line:
    words, better = _words(name)
    return Line(name, words, better, cells)


def _cell(model: Model, name: str) -> Cell:
    value = model.numbers.get(name)
    if value is None:
        return Cell()
    digits = 0 if name in _WHOLE or abs(value) >= 1000 else shown_digits(name)
    ends = model.intervals.get(name)
    return Cell(f"{value:,.{digits}f}", f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}" if ends else "")
