"""The page of runs: one file that says what was asked, what came of it, and what that does not show."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from dareu.files import atomic_file
from dareu.report._answers import answers_of
from dareu.report._asked import asked, missing
from dareu.report._attacks import Attacks, attacks
from dareu.report._curves import Curves, curves
from dareu.report._gather import Family, Gathered, gather
from dareu.report._layers import MaskTable, mask_tables
from dareu.report._limits import limits
from dareu.report._models import Model, role_of
from dareu.report._numbers import NumberTable, number_table, summary_table, words_of
from dareu.report._svg import Chart, plane
from dareu.report._verdict import TOLD, Standing, Verdict, judge, told_by_owner
from dareu.report.table import Summary

#: Pictures of forgetting against retaining: the number along the bottom, and the one up the side.
_PLANES = (
    ("Facts stated", "fact_recall", "retain_fact_recall"),
    ("Words of the answers", "forget_rouge", "retain_rouge"),
    ("Probability of the answers", "forget_probability", "retain_probability"),
)


class Made(NamedTuple):
    """A family as the page shows it."""

    family: Family
    asked: list[tuple[str, str]]
    """What was asked, a name and a text each."""
    verdicts: list[tuple[str, Verdict]]
    limits: list[str]
    numbers: NumberTable
    pictures: list[Chart]
    curves: list[Curves]
    attacks: Attacks | None
    masks: list[MaskTable]
    missing: list[str]


def write_page(path: Path, runs: Sequence[Path]) -> None:
    """Writes the page of run folders, atomically: one file, which asks nothing of a network.

    Args:
        path: The file, such as `report.html`.
        runs: Folders of `dareu forget`, `unlearn`, `spunge`, `finetune`, `benchmark` or `quickstart`, which may have
            failed or be under way: what is not there is said on the page.

    Raises:
        ValueError: There is no folder, or one is of no such run.
    """
    text = render_page(runs)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class Conclusion(NamedTuple):
    """What came of a run, and what its numbers do not show."""

    sentence: str
    limits: list[str]
    """A sentence each."""


def conclusion(run: Path) -> Conclusion:
    """What the page says of the unlearned model of one run.

    Raises:
        ValueError: As `write_page` says, or the run has no unlearned model.
    """
    (family,) = gather([run]).families
    made = _made(family)
    if not made.verdicts:
        raise ValueError(f"{run} has no unlearned model: name a run that has one.")
    return Conclusion(made.verdicts[0][1].sentence, made.limits)


def render_page(runs: Sequence[Path]) -> str:
    """The page as HTML; see `write_page`."""
    import jinja2

    gathered = gather([Path(run) for run in runs])
    made = [_made(family) for family in gathered.families]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dareu.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    return environment.get_template("page.html.j2").render(
        title=_title(gathered),
        made=made,
        several=len(made) > 1,
        summary=summary_table(gathered.summaries) if gathered.summaries else None,
        pictures=_pictures_of_summaries(gathered.summaries),
        answers=answers_of(gathered.families),
        requests=_requests(gathered.ledger),
        missing=gathered.missing,
        style=style,
        script=script,
        policy=_policy(style, script),
    )


def _asset(name: str) -> str:
    return (resources.files("dareu.report") / "templates" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and only the page's own style and script apply, known by their hashes."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _title(gathered: Gathered) -> str:
    owners = list(dict.fromkeys(owner for family in gathered.families for owner in family.owners))
    if not owners:
        return "Report: " + ", ".join(family.name for family in gathered.families)
    more = f" and {len(owners) - 3} more" if len(owners) > 4 else ""
    return "Forgetting " + ", ".join(owners[: 3 if more else 4]) + more


def _made(family: Family) -> Made:
    target, base, retrained = (_standing(m) for m in (family.target, family.base, family.retrained))
    attacked = attacks(family)
    strongest = {} if attacked is None else attacked.strongest
    owners = [len(family.request.get(name) or ()) for name in ("still_told", "come_back")]
    verdicts = [
        (m.name, told_by_owner(judge(_standing(m), target, base, retrained, strongest.get(m.name)), *owners))
        for m in family.unlearned
    ]
    masks, unread = mask_tables(family)
    return Made(
        family,
        asked(family),
        verdicts,
        limits(family),
        number_table([model for model in family.models if model.numbers]),
        _pictures([(m.name, m.role, Standing(m.numbers, m.intervals)) for m in family.models]),
        [found for model in family.unlearned or family.models if (found := curves(model)) is not None],
        attacked,
        masks,
        [*missing(family), *unread],
    )


def _standing(model: Model | None) -> Standing | None:
    """The numbers of a model where it was measured; those of its results where only these are left."""
    if model is None:
        return None
    measured = model.measured is not None or not model.numbers.keys().isdisjoint(TOLD)
    return Standing(model.numbers, model.intervals) if measured else None


def _pictures(models: Sequence[tuple[str, str, Standing]]) -> list[Chart]:
    """Models between forgetting and retaining."""
    charts = []
    for title, across, up in _PLANES:
        placed = [
            (name, role, x, y)
            for name, role, standing in models
            if (x := standing.reading(across)) is not None and (y := standing.reading(up)) is not None
        ]
        if len(placed) > 1 or any(role == "unlearned" for _, role, _, _ in placed):
            charts.append(plane(title, words_of(across), words_of(up), placed))
    return charts


def _pictures_of_summaries(summaries: Sequence[Summary]) -> list[Chart]:
    """The same of methods, at their means over seeds."""
    names = {name for _, *of_plane in _PLANES for name in of_plane}
    models = []
    for summary in summaries:
        role = role_of(summary.method)
        means = {name: mean for name in names if (mean := summary.mean(name)) is not None}
        models.append((" ".join(filter(None, (summary.method, summary.mask))), role, Standing(means, {})))
    return _pictures(models)


def _requests(ledger: list[dict[str, Any]]) -> dict[str, Any] | None:
    """All owners by request: what is measured of each."""
    if not ledger:
        return None
    numbers = dict.fromkeys(
        name for entry in ledger for of_owner in (entry.get("by_owner") or {}).values() for name in of_owner
    )
    lines = []
    for place, entry in enumerate(ledger, 1):
        by_owner = entry.get("by_owner") or {}
        new = [str(owner) for owner in entry.get("owners") or ()]
        for owner in dict.fromkeys([*new, *by_owner]):
            values = by_owner.get(owner) or {}
            cells = [f"{values[n]:.2f}" if isinstance(values.get(n), int | float) else "" for n in numbers]
            lines.append((place, str(entry.get("date") or "")[:16].replace("T", " "), owner, owner in new, cells))
    return {"numbers": [(name, words_of(name)) for name in numbers], "lines": lines}
