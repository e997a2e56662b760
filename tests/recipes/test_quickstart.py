"""The whole quickstart on a smaller world and with a few updates, its stages run in the process of the tests."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dareu.data import parts
from dareu.data.fictional import fictional_world
from dareu.recipes import quickstart
from dareu.recipes.quickstart import Stage, run_stage, run_stages
from dareu.runs import read_results

ROWS = [
    ("target", None),
    ("retrained", None),
    ("dareu", "wagle"),
    ("dareu", "random"),
    ("dareu", None),
    ("npo", "wagle"),
    ("npo", None),
    ("graddiff", None),
]
METRICS = "tow forget_rouge retain_rouge forget_probability retain_probability fact_recall name_kept "
METRICS += "forget_attribution forget_attribution_heldout misattribution"


def test_it_compares_every_method(
    recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = functools.cache(functools.partial(fictional_world, num_background=6, num_holdout=0, num_test=1))
    ran = []

    def in_this_process(stage: Stage, log: Path) -> float:
        script, *words = stage.command
        log.write_text(recipe(Path(script).stem, *words), encoding="utf-8")
        ran.append(stage.name)
        return 1.0

    monkeypatch.setattr(parts, "fictional_world", small)
    monkeypatch.setattr(quickstart, "run_stage", in_this_process)
    out = tmp_path / "quickstart"
    words = ["--smoke", "--jobs", "1", "--num_owners", "4", "--num_forget", "2", "--output_dir", str(out)]
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *words])
    quickstart.main()
    printed = capsys.readouterr().out

    rows = read_results(out / "results.json")
    assert [(row["method"], row["mask"]) for row in rows] == ROWS
    for row in rows:
        assert set(METRICS.split()) <= set(row["metrics"])
        assert row["metrics"].get("moved_outside_mask", 0) == 0
        assert ("moved_outside_mask" in row["metrics"]) == (row["mask"] is not None)
        assert row["method"] in ("target", "retrained") or row["metrics"]["updates"] == 4
        assert (row["seconds"] is None) == (row["method"] in ("target", "retrained"))
    assert next(row for row in rows if row["method"] == "retrained")["metrics"]["tow"] == pytest.approx(1)

    # The commands it prints are those it ran, and the answers those it measured
    assert len(ran) == len(set(ran)) == printed.count("--config")
    assert all(f"] {name}: " in printed for name in ran)
    owners = list(dict.fromkeys(fictional_world(4, num_background=1).owners["owner"]))
    assert f"To forget: {owners[2]}, {owners[3]}" in printed
    assert all(printed.count(f"\n  {when}: ") == 3 for when in ("before", "after", "retrained"))
    for name in ("dareu-wagle", "dareu-random", "npo-wagle"):
        assert f"{name}: 0 weights outside the" in printed


def test_a_failed_stage_shows_its_command_and_the_end_of_its_log(tmp_path: Path) -> None:
    code = "print('first'); print('because of this', flush=True); raise SystemExit(3)"
    stage = Stage("broken", (), ["-c", code])
    with pytest.raises(ValueError, match=r"(?s)stage broken failed with exit code 3.*broken\.log.*because of this"):
        run_stage(stage, tmp_path / "broken.log")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stage_runs_after_its_forerunners(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [
        Stage("last", ("left", "right"), ["recipes/last.py"]),
        Stage("left", ("first",), ["recipes/left.py"]),
        Stage("right", ("first",), ["recipes/right.py", "a b"]),
        Stage("first", (), ["recipes/first.py"]),
    ]
    ended: list[str] = []

    def run(stage: Stage, log: Path) -> float:
        assert set(stage.after) <= set(ended)
        ended.append(stage.name)
        return 0.0

    monkeypatch.setattr(quickstart, "run_stage", run)
    run_stages(stages, tmp_path / "logs", jobs)
    assert sorted(ended) == ["first", "last", "left", "right"]
    printed = capsys.readouterr().out
    assert "[4/4] last: dareu last\n" in printed and "right: dareu right 'a b'\n" in printed


def test_another_data_set_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--dataset", "other", "--output_dir", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="fictional world"):
        quickstart.main()
    assert not (tmp_path / "out").exists()
