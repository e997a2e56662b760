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

#: What is known row by row.
_ROWS = "measurement.parquet"
#: By how much an owner who was forgotten earlier may tell more than before.
_RISE = 0.1
#: Below this above the base model's, a target's ROUGE on rows that it was trained on is no sign that it knows them.
_KNOWN = 0.05


class Placed(NamedTuple):
    """A model, and the folder of what is known of it."""

    model: str
    folder: Path

    @property
    def is_measured(self) -> bool:
        """Whether its numbers are there."""
        return (self.folder / "measurement.json").exists()


class Models(NamedTuple):
    """The models that a request is read by."""

    run: Path
    """The folder of the training."""
    by_role: dict[str, Placed]
    """`target`, `base` and `retrained` where they are given, `unlearned`."""
    earlier: tuple[Placed, Placed] | None
    """Target and unlearned model as measured on those who were forgotten earlier."""

    def measured(self) -> dict[str, StoredMeasurement]:
        """What was measured of each by its role, of those that were."""
        there = {role: placed.folder for role, placed in self.by_role.items() if placed.is_measured}
        return {role: read_measurement(folder / "measurement.json") for role, folder in there.items()}

    def lacking(self) -> list[str]:
        """What was not measured of those without which nothing can be said."""
        needed = {role: self.by_role[role] for role in ("target", "unlearned")}
        needed |= dict(zip(("earlier before", "earlier"), self.earlier or (), strict=False))
        return [role for role, placed in needed.items() if not placed.is_measured]


def result_row(models: Models, folder: Path) -> ResultRow:
    """The row of the unlearned model, with what compares it with the retrained one where there is one.

    Args:
        models: Measured.
        folder: Of the request.
    """
    (row,) = read_results(models.run / "results.json")
    measured = models.measured()
    row["metrics"] |= measured["unlearned"]["metrics"]
    if "retrained" in measured:
        common = common_numbers(measured.values())
        row["metrics"] |= beside_control(measured["unlearned"], measured["retrained"], common=common)
    return {**row, "model": str(folder / "model")}


class Everybody(NamedTuple):
    """What is told of each owner who was forgotten, now or earlier."""

    by_owner: dict[str, dict[str, float]]
    still: list[str]
    """A sentence for each owner to forget who is still told of."""
    back: list[str]
    """A sentence for each of the earlier ones who comes back."""


def of_everybody(models: Models, entries: Sequence[Entry]) -> Everybody:
    """What was measured of each owner, so that nobody hides behind the mean.

    Still told of is who is nearer to what the target tells than to what the control does: the retrained model, or the
    base model, or none at all. An earlier one comes back where a number has risen since any request.

    Args:
        models: Measured.
        entries: The requests so far.
    """
    numbers = {role: by_owner(placed.folder / _ROWS) for role, placed in models.by_role.items() if placed.is_measured}
    found, target = numbers["unlearned"], numbers["target"]
    control = numbers.get("retrained") or numbers.get("base") or {}
    still = []
    for owner, of_owner in found.items():
        for told in [name for name in ("fact_recall", "forget_rouge") if name in of_owner][:1]:
            now, before, after = of_owner[told], target[owner][told], control.get(owner, {}).get(told, 0.0)
            if before - after > _KNOWN and now - after > (before - after) / 2:
                still.append(f"{owner} is still told of: {told} is {now:.2f}, and was {before:.2f}.")
    if models.earlier is None:
        return Everybody(found, still, [])
    before_now, earlier = (by_owner(placed.folder / _ROWS) for placed in models.earlier)
    back = []
    for owner, of_owner in earlier.items():
        known = [before_now[owner], *(entry.by_owner[owner] for entry in entries if owner in entry.by_owner)]
        risen = []
        for name, value in of_owner.items():
            lowest = min(of[name] for of in known if name in of)
            if value > lowest + _RISE:
                risen.append(f"{name} rose from {lowest:.2f} to {value:.2f}")
        if risen:
            back.append(f"{owner}, forgotten earlier, comes back: {', '.join(risen)}.")
    return Everybody(earlier | found, still, back)


def doubts(measured: Mapping[str, StoredMeasurement]) -> list[str]:
    """What the numbers of target and base say against the request itself, a sentence each."""
    target, base = (measured[role]["metrics"] if role in measured else None for role in ("target", "base"))
    if target is None or base is None or not {"forget_rouge"} <= target.keys() & base.keys():
        return []
    if target["forget_rouge"] > base["forget_rouge"] + _KNOWN:
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
