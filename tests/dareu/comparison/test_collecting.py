import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dareu.comparison.collecting import collect
from dareu.comparison.planning import Row
from dareu.metrics import Metric
from dareu.runs import write_measurement, write_results

JUDGED = "forget_attribution_validation_stripped"


@pytest.fixture
def row(tmp_path: Path) -> Callable[..., Row]:
    """`row(name, seed, rouge, …)`: a model whose ROUGE on every split is that, with what its stage would leave.

    On the validation rows the ROUGE is `before`, and the judge's word `judged`. A method's run took as many seconds as
    its ROUGE is long, and wrote rows on `parts`.
    """

    def build(
        name: str,
        seed: int = 0,
        rouge: float = 0.5,
        *,
        mask: str | None = None,
        setting: int = 0,
        before: float = 0.5,
        judged: float = 0.0,
        parts: tuple[str, ...] = (),
    ) -> Row:
        folder = tmp_path / f"{name}-{mask}-{setting}-seed{seed}"
        for place, value in ((folder, rouge), (folder / "validation", before)):
            metrics = {f"{split}_rouge": value for split in ("forget", "retain", "test")} | {JUDGED: judged}
            measured: Any = {"key": "", "metrics": metrics, "answers": {}, "prompts": {}, "rows": {}}
            write_measurement(place / "measurement.json", measured)
        measured_only = name == "target" or name.startswith("retrained")
        if not measured_only:
            ran: Any = {"method": "npo", "mask": "x", "seed": seed, "model": "m", "metrics": {"updates": 3}}
            ran |= {"seconds": rouge, "peak_memory_bytes": 7}
            write_results(folder / "results.json", [*({**ran, "part": part} for part in parts), ran])
        return Row(name, mask, seed, None if measured_only else setting, folder, str(folder / "model"))

    return build


def test_tow_is_taken_beside_the_control_of_the_same_seed(row: Callable[..., Row]) -> None:
    rows = [row("target", 0, 1.0), row("retrained", 0, 0.75), row("retrained", 1, 0.5), row("npo", 0), row("npo", 1)]
    found = collect(rows, tuned=False)
    assert [(each["method"], each["seed"], each["metrics"]["tow"]) for each in found] == [
        ("target", 0, 0.75**3),
        ("retrained", 0, 1.0),
        ("retrained", 1, 1.0),
        ("npo", 0, 0.75**3),
        ("npo", 1, 1.0),
    ]
    target, *_, npo = found
    assert target["seconds"] is None and target["peak_memory_bytes"] is None
    assert (npo["seconds"], npo["peak_memory_bytes"], npo["metrics"]["updates"]) == (0.5, 7, 3)
    assert npo["model"] == str(rows[-1].folder / "model") and npo["mask"] is None


@pytest.mark.parametrize("tuned", [False, True])
def test_a_further_control_is_compared_with_the_first(row: Callable[..., Row], tuned: bool) -> None:
    rows = [row("retrained", 0, 0.5), row("retrained 2", 0, 0.75), row("npo", 0, 0.5)]
    found = collect(rows, tuned=tuned)
    assert [(each["method"], each["metrics"]["tow"]) for each in found if "trial" not in each] == [
        ("retrained", 1.0),
        ("retrained 2", 0.75**3),
        ("npo", 1.0),
    ]


def test_chosen_metrics_are_compared_with_the_control_by_their_options(row: Callable[..., Row]) -> None:
    def gap(numbers: dict[str, float], retrained: dict[str, float], *, times: float = 1.0) -> dict[str, float]:
        return {"gap": times * (numbers["forget_rouge"] - retrained["forget_rouge"])}

    rows = [row("retrained", 0, 0.25), row("npo", 0, 0.75)]
    found = collect(rows, tuned=False, metrics={"gap": Metric(gap, splits=())}, metric_kwargs={"gap": {"times": 4}})
    assert [each["metrics"]["gap"] for each in found] == [0.0, 2.0]
    assert not any("tow" in each["metrics"] for each in found)


def test_rows_on_parts_come_first_under_the_names_of_the_comparison(row: Callable[..., Row]) -> None:
    found = collect([row("split", mask="few", parts=("a", "b"))], tuned=False)
    assert [(each["method"], each["mask"], each.get("part")) for each in found] == [
        ("split", "few", "a"),
        ("split", "few", "b"),
        ("split", "few", None),
    ]


def test_what_failed_is_left_out(row: Callable[..., Row]) -> None:
    rows = [row("target"), row("retrained"), row("npo"), row("dpo")]
    found = collect(rows, {rows[2].folder.name: "out of luck"}, tuned=False)
    assert [each["method"] for each in found] == ["target", "retrained", "dpo"]
    found = collect(rows, [rows[1].folder.name], tuned=False)
    assert [each["method"] for each in found] == ["target", "npo", "dpo"]
    assert not [each for each in found if "tow" in each["metrics"]], "there is no control to compare with"


def test_a_model_without_measures_is_named(row: Callable[..., Row]) -> None:
    missing = row("npo")
    (missing.folder / "measurement.json").unlink()
    with pytest.raises(ValueError, match=rf"{missing.folder}/measurement.json does not exist"):
        collect([missing], tuned=False)


def test_the_trial_that_is_best_on_the_validation_rows_is_chosen_over_all_seeds(row: Callable[..., Row]) -> None:
    controls = [row("retrained", seed, 0.5, judged=0.25) for seed in (0, 1)]
    # Setting 1 is best on the reported rows and setting 2 with one seed; setting 0 on both seeds' validation rows.
    trials = [
        row("npo", seed, rouge, setting=setting, before=before, judged=judged)
        for seed, setting, rouge, before, judged in [
            (0, 0, 0.25, 0.5, 0.0),
            (0, 1, 0.5, 0.5, 0.75),
            (0, 2, 0.25, 0.5, 0.25),
            (1, 0, 0.0, 0.5, 0.0),
            (1, 1, 0.5, 0.5, 0.75),
            (1, 2, 0.25, 0.0, 0.0),
        ]
    ]
    found = collect([*controls, *trials], tuned=True)
    told = [(each["method"], each["seed"], each.get("trial"), each["metrics"]["tow"]) for each in found]
    assert told == [
        ("retrained", 0, None, 1.0),
        ("retrained", 1, None, 1.0),
        ("npo", 0, None, 0.75**3),
        ("npo", 1, None, 0.5**3),
        ("npo", 0, 0, 0.75**3),
        ("npo", 0, 1, 1.0),
        ("npo", 0, 2, 0.75**3),
        ("npo", 1, 0, 0.5**3),
        ("npo", 1, 1, 1.0),
        ("npo", 1, 2, 0.75**3),
    ]
    gaps = [each["metrics"]["validation_gap"] for each in found[4:]]
    assert gaps == [0.125, 0.25, 0.0, 0.125, 0.25, pytest.approx(math.sqrt((3 * 0.25 + 0.0625) / 4))]


def test_a_trial_that_keeps_too_little_is_not_chosen(row: Callable[..., Row]) -> None:
    controls = [row("target", before=1.0), row("retrained", before=0.25)]
    trials = [row("npo", setting=setting, before=before) for setting, before in enumerate((0.25, 0.75, 1.0))]
    for least, chosen in ((0.0, 0), (0.7, 1), (0.8, 2)):
        found = collect([*controls, *trials], tuned=True, min_utility=least)
        (npo,) = [each for each in found if each["method"] == "npo" and "trial" not in each]
        assert npo["model"] == str(trials[chosen].folder / "model")
        assert [each["metrics"]["validation_utility"] for each in found if "trial" in each] == [0.25, 0.75, 1.0]


def test_masks_are_tuned_apart_and_trials_without_control_are_not_judged(row: Callable[..., Row]) -> None:
    controls = [row("retrained", seed, judged=0.25) for seed in (0, 1)]
    trials = [
        row("npo", seed, mask=mask, setting=setting, judged=0.25 if setting == best else 0.5)
        for mask, best in ((None, 0), ("few", 1))
        for setting in (0, 1)
        for seed in (0, 1)
    ]
    found = collect([*controls, *trials], {controls[1].folder.name}, tuned=True)
    assert [(each["mask"], each["seed"]) for each in found if each["method"] == "npo" and "trial" not in each] == [
        (None, 0),
        ("few", 0),
    ]
    chosen = {each["mask"]: each["model"] for each in found if each["method"] == "npo" and "trial" not in each}
    assert "npo-None-0-seed0" in chosen[None] and "npo-few-1-seed0" in chosen["few"]
