"""What was measured of the models, as rows of results: every one, or of trials the chosen one first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dareu.comparison._tuning import Judged, best_setting
from dareu.comparison.planning import Row
from dareu.metrics import Metric
from dareu.runs import ResultRow, beside_control, common_numbers, read_measurement, read_results


def collect(
    rows: Sequence[Row],
    failed: Collection[str] = (),
    *,
    tuned: bool,
    metrics: Mapping[str, Metric] | None = None,
    metric_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    min_utility: float = 0.0,
) -> list[ResultRow]:
    """What was measured, and what compares it with the control of the same seed, such as the retraining gap.

    Args:
        rows: The models, whose stages have run.
        failed: Names of the stages that failed, whose rows are left out.
        tuned: Whether an entry's settings are trials, of which the best over all seeds is chosen.
        metrics: Those that were chosen, by name; default: `METRICS`.
        metric_kwargs: Options of each.
        min_utility: The share of the target's retained ROUGE on the validation rows that a chosen setting has to keep.

    Returns:
        A row a model in the given order, before each those on its parts where SPUNGE measured any. Where there are
        trials, target and controls, the chosen ones, and then all trials, which have `trial`, the number of their
        setting, `validation_gap`, the retraining gap on the validation rows, by which they were chosen, and
        `validation_utility`; a trial whose control failed is left out, for it cannot be judged.

    Raises:
        ValueError: A model was not measured, or not as the comparisons need it.
    """
    rows = [row for row in rows if row.folder.name not in failed]
    targets, controls = ({row.seed: row.folder for row in rows if row.name == name} for name in ("target", "retrained"))
    found: list[ResultRow] = []
    trials: list[ResultRow] = []
    judged: dict[tuple[str, str | None], dict[int, list[Judged]]] = {}
    # A gap counts what all models of its table have
    common, validated = (
        common_numbers(read_measurement(row.folder / half / "measurement.json") for row in rows if half == "" or tuned)
        for half in ("", "validation")
    )
    measured = partial(_measured, metrics=metrics, options=metric_kwargs)
    for row in rows:
        control = controls.get(row.seed)
        if row.setting is None:
            found.append(_result(row, measured(row.folder, control, common=common)))
            continue
        result, parts = _unlearned(row, measured(row.folder, control, common=common))
        if not tuned:
            found += [*parts, result]
        elif control is not None and (row.seed in targets or not min_utility):
            before = measured(row.folder / "validation", control / "validation", common=validated)
            of_row = Judged(before["retraining_gap"], _utility(before, targets.get(row.seed)))
            result["metrics"] |= {"validation_gap": of_row.gap, "validation_utility": of_row.utility}
            judged.setdefault((row.name, row.mask), {}).setdefault(row.setting, []).append(of_row)
            trials.append({**result, "trial": row.setting})
    for trial in trials:
        if trial["trial"] == best_setting(judged[trial["method"], trial["mask"]], min_utility):
            chosen = trial.copy()
            del chosen["trial"]
            found.append(chosen)
    return [*found, *trials]


def _utility(numbers: Mapping[str, float], target: Path | None) -> float:
    """The retained ROUGE as a share of the target's on the validation rows; 1 where that cannot be told."""
    if target is None:
        return 1.0
    whole = read_measurement(target / "validation" / "measurement.json")["metrics"]["retain_rouge"]
    return numbers["retain_rouge"] / whole if whole else 1.0


def _result(row: Row, numbers: dict[str, float]) -> ResultRow:
    """A row of a model that nothing is known of but what was measured."""
    return {
        "method": row.name,
        "mask": row.mask,
        "seed": row.seed,
        "model": row.model,
        "metrics": numbers,
        "seconds": None,
        "peak_memory_bytes": None,
    }


def _unlearned(row: Row, numbers: dict[str, float]) -> tuple[ResultRow, list[ResultRow]]:
    """The row of a model with what its run said of itself, and the rows that it wrote on parts."""
    ran, *parts = sorted(read_results(row.folder / "results.json"), key=lambda each: "part" in each)
    result = _result(row, numbers)
    result |= {"seconds": ran["seconds"], "peak_memory_bytes": ran["peak_memory_bytes"]}
    result["metrics"] = {**ran["metrics"], **result["metrics"]}
    return result, [{**part, "method": row.name, "mask": row.mask} for part in parts]


def _measured(
    folder: Path,
    control: Path | None = None,
    *,
    metrics: Mapping[str, Metric] | None,
    options: Mapping[str, Mapping[str, Any]] | None,
    common: Collection[str],
) -> dict[str, float]:
    """The numbers in a folder's measurement.json, and what is told of them by those in its control's."""
    found = read_measurement(folder / "measurement.json")
    if control is None:
        return dict(found["metrics"])
    retrained = read_measurement(control / "measurement.json")
    return beside_control(found, retrained, metrics, options, common=common) | found["metrics"]
