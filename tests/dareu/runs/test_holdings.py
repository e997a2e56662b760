"""What of a run holds forgotten data, and what is left once that is taken out."""

import json
from pathlib import Path

import pytest

from dareu.files import write_json
from dareu.runs import read_measurement
from dareu.runs.holdings import CLEANED, holdings, take_out

HOLD = (
    "stages/classifier-1/classifier/head.safetensors",
    "stages/unlearn-1/rollouts/a.safetensors",
    "stages/unlearn-1/completions/completions_00001.parquet",
    "stages/unlearn-1/checkpoint-10/model.safetensors",
    "stages/unlearn-1/measured/x.json",
    "stages/unlearn-1/measurement.parquet",
    "stages/unlearn-1/original/scores.safetensors",
    "stages/unlearn-1/.tmp-1-measurement.parquet",
    "stages/trial-0.1-1/model/model.safetensors",
    "parts/music/model/model.safetensors",
    "after/music.parquet",
    "stages/logs/unlearn-1.log",
    "undo.safetensors",
    "report.html",
)
#: Their texts go and their numbers stay.
MEASURED = ("stages/unlearn-1/measurement.json", "after/music.json")
KEPT = (
    "config.yaml",
    "model/model.safetensors",
    "stages/unlearn-1/model/model.safetensors",
    "stages/unlearn-1/results.json",
    "stages/unlearn-1/metrics.jsonl",
    "stages/unlearn-1/audit.json",
    "stages/mask-1/mask.safetensors",
    "stages/logs/unlearn-1.json",
    "requests.jsonl",
    "patch.safetensors",
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name in (*HOLD, *KEPT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("secret")
    measured = {"key": "k", "metrics": {"tow": 0.5}, "rows": {}, "answers": {"forget": ["secret"]}}
    for name in MEASURED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, {**measured, "prompts": {"forget": ["secret"]}})
    return folder


def test_all_that_holds_texts_is_named_and_nothing_else(run: Path) -> None:
    found = {str(holding.path.relative_to(run)): holding for holding in holdings(run)}
    assert all(any(name == path or name.startswith(f"{path}/") for path in found) for name in HOLD)
    assert not any(name == path or name.startswith(f"{path}/") for path in found for name in KEPT)
    assert found.keys() >= set(MEASURED)
    assert found["stages/unlearn-1/rollouts"].nbytes == len("secret")
    assert all(holding.holds for holding in found.values())


@pytest.mark.parametrize("name", ["trial-1", "after", "parts/1", "logs"])
def test_what_a_run_is_called_means_nothing(run: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = run.parent / name
    renamed.parent.mkdir(exist_ok=True)
    run.rename(renamed)
    take_out(renamed)
    assert all((renamed / kept).exists() for kept in KEPT)
    assert not any((renamed / hold).exists() for hold in HOLD)
    monkeypatch.chdir(renamed)
    assert holdings(".") == []


def test_a_folder_that_is_no_run_is_not_written_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no config"):
        take_out(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_what_is_taken_out_is_gone_and_the_rest_stays(run: Path) -> None:
    taken = take_out(run)
    assert holdings(run) == []
    assert not any((run / name).exists() for name in HOLD) and all((run / name).exists() for name in KEPT)
    for name in MEASURED:
        measured = read_measurement(run / name)
        assert measured["metrics"] == {"tow": 0.5} and "secret" not in json.dumps(measured)
    said = json.loads((run / CLEANED).read_text())
    assert said["deleted"] == [str(holding.path.relative_to(run)) for holding in taken]


def test_a_damaged_measurement_goes_and_what_was_deleted_before_stays_listed(run: Path) -> None:
    first = {str(holding.path.relative_to(run)) for holding in take_out(run)}
    (run / "stages/unlearn-1/measurement.json").write_text("{")
    (run / "report.html").write_text("secret")
    take_out(run)
    assert not (run / "stages/unlearn-1/measurement.json").exists() and not (run / "report.html").exists()
    assert set(json.loads((run / CLEANED).read_text())["deleted"]) == first


def test_stages_that_stand_apart_are_cleaned_too(run: Path) -> None:
    (run / "stages" / "configs").mkdir()
    assert {holding.path.parent.parent for holding in take_out(run / "stages")} >= {run / "stages"}
    left = ["after/music.json", "after/music.parquet", "parts/music/model", "report.html", "undo.safetensors"]
    assert [str(holding.path.relative_to(run)) for holding in holdings(run)] == left


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ValueError, match=r"holds no config.yaml: name the folder of a run"):
        take_out(tmp_path)
    assert (tmp_path / "report.html").exists()
