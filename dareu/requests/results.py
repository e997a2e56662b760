"""What came of a request: its models, their numbers side by side, and everybody who was forgotten."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dareu.metrics import shown_columns
from dareu.report import shown_digits
from dareu.requests._by_owner import SHOWN, by_owner
from dareu.requests.ledger import Entry
from dareu.runs import (
    ResultRow,
    StoredMeasurement,
    beside_control,
    common_numbers,
    read_measurement,
    read_results,
)

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger(__name__)

#: By how much an owner who was forgotten earlier may tell more than before.
_RISE = 0.1
#: Below this above the base model's, a target's ROUGE on rows that it was trained on is no sign that it knows them.
_KNOWN = 0.05


class Placed(NamedTuple):
    """A model, and the folder of what is known of it."""

    model: str
    folder: Path

    @property
    def measurement(self) -> Path:
        """What was measured of it, once it was."""
        return self.folder / "measurement.json"


class Models(NamedTuple):
    """The models that a request is read by."""

    by_role: dict[str, Placed]
    """`target`, `base` and `retrained` where they are given, `unlearned`."""
    earlier: tuple[Placed, Placed] | None
    """Target and unlearned model as measured on those who were forgotten earlier."""

    def measured(self) -> dict[str, StoredMeasurement]:
        """What was measured of each by its role, of those that were."""
        found = {role: placed.measurement for role, placed in self.by_role.items()}
        return {role: read_measurement(path) for role, path in found.items() if path.exists()}


def result_row(models: Models, folder: Path) -> ResultRow:
    """The row of the unlearned model, with what compares it with the retrained one where there is one.

    Args:
        models: Measured.
        folder: Of the request.
    """
    (row,) = read_results(models.by_role["unlearned"].folder / "results.json")
    measured = models.measured()
    row["metrics"] |= measured["unlearned"]["metrics"]
    if "retrained" in measured:
        common = common_numbers(measured.values())
        row["metrics"] |= beside_control(measured["unlearned"], measured["retrained"], common=common)
    return {**row, "model": str(folder / "model")}


def of_everybody(models: Models) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The numbers of each owner forgotten now or earlier, and a sentence for each of the latter who comes back."""
    found: dict[str, dict[str, float]] = {}
    back = []
    if models.earlier is not None:
        before, found = (by_owner(placed.folder / "measurement.parquet") for placed in models.earlier)
        for owner, numbers in found.items():
            risen = [
                f"{name} rose from {before[owner][name]:.2f} to {value:.2f}"
                for name, value in numbers.items()
                if value > before[owner].get(name, value) + _RISE
            ]
            if risen:
                back.append(f"{owner}, forgotten earlier, comes back: {', '.join(risen)}.")
    return found | by_owner(models.by_role["unlearned"].folder / "measurement.parquet"), back


def doubts(measured: Mapping[str, StoredMeasurement]) -> list[str]:
    """What the numbers of target and base say against the request itself, a sentence each."""
    target, base = (measured[role]["metrics"] if role in measured else None for role in ("target", "base"))
    if target is None or base is None or target["forget_rouge"] > base["forget_rouge"] + _KNOWN:
        return []
    return [
        f"The model gives {target['forget_rouge']:.2f} of the words of the rows to forget, and its base "
        f"{base['forget_rouge']:.2f}: it may not be the model that learnt them, or it was asked in another form "
        "(prompt_template, chat template)."
    ]


def models_table(measured: Mapping[str, StoredMeasurement], metrics: Mapping[str, float]) -> Table:
    """The numbers that tables show, a column a model; of the unlearned one `metrics`."""
    from rich.table import Table

    numbers = {role: of["metrics"] for role, of in measured.items()} | {"unlearned": metrics}
    table = Table("", *numbers, title="What came of it")
    for name in shown_columns():
        if any(name in of for of in numbers.values()):
            cells = (f"{of[name]:.{shown_digits(name)}f}" if name in of else "" for of in numbers.values())
            table.add_row(name, *cells)
    return table


def owners_table(entries: Sequence[Entry]) -> Table:
    """Everybody who was forgotten, by request, with what the last one measured of them."""
    from rich.table import Table

    found = entries[-1].by_owner
    table = Table("request", "owner", *SHOWN, title="Everybody who was forgotten, now")
    for number, entry in enumerate(entries, start=1):
        for owner in entry.owners:
            numbers = found.get(owner, {})
            cells = (f"{numbers[name]:.2f}" if name in numbers else "" for name in SHOWN)
            table.add_row(str(number), owner, *cells)
    return table
