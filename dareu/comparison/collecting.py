"""What was measured of the models, as rows of results: every one, or of trials the chosen one first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from dareu.comparison._tuning import best_setting, validation_score
from dareu.comparison.planning import Row
from dareu.metrics import against_retrained
from dareu.runs import ResultRow, read_measurement, read_results


def collect(rows: Sequence[Row], failed: Collection[str] = (), *, tuned: bool) -> list[ResultRow]:
    """What was measured, with ToW beside the control of the same seed.

    Args:
        rows: The models, whose stages have run.
        failed: Names of the stages that failed, whose rows are left out.
        tuned: Whether an entry's settings are trials, of which the best over all seeds is chosen.

    Returns:
        A row a model in the given order, before each those on its parts where SPUNGE measured any. Where there are
        trials, target and control, the chosen ones, and then all trials, which have `trial`, the number of their
        setting; a trial whose control failed is left out, for it cannot be judged.

    Raises:
        ValueError: A model was not measured, or not as ToW needs it.
    """
    rows = [row for row in rows if row.folder.name not in failed]
    controls = {row.seed: row.folder for row in rows if row.name == "retrained"}
    found: list[ResultRow] = []
    trials: list[ResultRow] = []
    scores: dict[tuple[str, str | None], dict[int, list[float]]] = {}
    for row in rows:
        control = controls.get(row.seed)
        if row.name in ("target", "retrained"):
            found.append(_result(row, control))
            continue
        result, parts = _unlearned(row, control)
        if not tuned:
            found += [*parts, result]
        elif control is not None:
            score = _score(row.folder / "validation", control / "validation")
            result["metrics"]["validation_score"] = score
            scores.setdefault((row.name, row.mask), {}).setdefault(row.setting, []).append(score)
            trials.append({**result, "trial": row.setting})
    for trial in trials:
        if trial["trial"] == best_setting(scores[trial["method"], trial["mask"]]):
            chosen = trial.copy()
            del chosen["trial"]
            found.append(chosen)
    return [*found, *trials]


def _result(row: Row, control: Path | None) -> ResultRow:
    """A row of a model that nothing is known of but its measures."""
    return {
        "method": row.name,
        "mask": row.mask,
        "seed": row.seed,
        "model": row.model,
        "metrics": _measured(row.folder, control),
        "seconds": None,
        "peak_memory_bytes": None,
    }


def _unlearned(row: Row, control: Path | None) -> tuple[ResultRow, list[ResultRow]]:
    """The row of a model with what its run said of itself, and the rows that it wrote on parts."""
    ran, *parts = sorted(read_results(row.folder / "results.json"), key=lambda each: "part" in each)
    result = _result(row, control)
    result |= {"seconds": ran["seconds"], "peak_memory_bytes": ran["peak_memory_bytes"]}
    result["metrics"] = {**ran["metrics"], **result["metrics"]}
    return result, [{**part, "method": row.name, "mask": row.mask} for part in parts]


def _score(folder: Path, control: Path) -> float:
    """The validation score of a model by what was measured in a folder, beside its control's."""
    return validation_score(_measured(folder, control), _measured(control))


def _measured(folder: Path, control: Path | None = None) -> dict[str, float]:
    """The metrics in a folder's measurement.json, and what is told of them by those in its control's."""
    metrics = dict(read_measurement(folder / "measurement.json")["metrics"])
    if control is not None:
        metrics |= against_retrained(metrics, _measured(control))
    return metrics
