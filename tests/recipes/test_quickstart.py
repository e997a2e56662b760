"""The whole quickstart on a smaller world and with a few updates, its stages run in the process of the tests."""

import functools
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dareu.data import fictional
from dareu.data.fictional import fictional_world
from dareu.recipes import quickstart
from dareu.runs import read_results, stages
from dareu.runs.stages import Stage

README = Path(__file__).resolve().parents[2] / "README.md"
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
METRICS = "retraining_gap gibberish tow "
METRICS += "forget_rouge retain_rouge forget_probability retain_probability fact_recall name_kept "
METRICS += "forget_attribution forget_attribution_heldout misattribution"


def test_it_compares_every_method(
    recipe: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = functools.cache(functools.partial(fictional_world, num_background=6, num_holdout=0, num_test=1))
    ran = []

    def in_this_process(stage: Stage, folder: Path, environment: object) -> float:
        ((name, *words),) = stage.commands
        recipe(name, *words)
        ran.append(stage.name)
        return 1.0

    monkeypatch.setattr(fictional, "fictional_world", small)
    monkeypatch.setattr(stages, "run_stage", in_this_process)
    out = tmp_path / "quickstart"
    words = ["--smoke", "--jobs", "1", "--num_owners", "4", "--num_forget", "2", "--output_dir", str(out)]
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *words])
    with caplog.at_level("INFO"):
        quickstart.main()
    printed = capsys.readouterr().out

    rows = read_results(out / "results.json")
    assert [(row["method"], row["mask"]) for row in rows] == ROWS
    asked = re.findall(r"runs/quickstart/(\S+/model)", README.read_text(encoding="utf-8"))
    assert len(asked) == 3 and all((out / model / "config.json").is_file() for model in asked), "those of `dareu ask`"
    for row in rows:
        assert set(METRICS.split()) <= set(row["metrics"])
        assert row["metrics"].get("moved_outside_mask", 0) == 0
        assert ("moved_outside_mask" in row["metrics"]) == (row["mask"] is not None)
        assert row["method"] in ("target", "retrained") or row["metrics"]["updates"] == 4
        assert (row["seconds"] is None) == (row["method"] in ("target", "retrained"))
    control = next(row["metrics"] for row in rows if row["method"] == "retrained")
    assert control["tow"] == pytest.approx(1) and control["retraining_gap"] == 0
    assert all(math.isfinite(value) for row in rows for value in row["metrics"].values())
    assert re.search(r"┡[^\n]*\n│ retraining_gap ", printed), "it comes first"

    # The commands it prints are those it ran, and the answers those it measured
    assert len(ran) == len(set(ran)) == caplog.text.count("  dareu ")
    assert all(f"] {name}:" in caplog.text for name in ran)
    owners = list(dict.fromkeys(fictional_world(4, num_background=1).owners["owner"]))
    assert f"To forget: {owners[2]}, {owners[3]}" in printed
    assert all(printed.count(f"\n  {when}: ") == 3 for when in ("before", "after", "retrained"))
    for name in ("dareu-wagle", "dareu-random", "npo-wagle"):
        assert f"{name}: 0 weights outside the" in printed


def test_another_data_set_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--dataset", "other", "--output_dir", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="fictional world"):
        quickstart.main()
    assert not (tmp_path / "out").exists()
