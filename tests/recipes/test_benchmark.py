"""The comparison of methods from one YAML, on a smaller world and with a few updates."""

import csv
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dareu.cli import find_recipes
from dareu.data import fictional
from dareu.data.fictional import fictional_world
from dareu.runs import plans, read_results, stages
from dareu.runs.stages import Stage

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs" / "fictional"
BRIEF: dict[str, Any] = {
    "max_steps": 2,
    "validation_steps": 0,
    "early_stopping_patience": None,
    "stop_fluency_nll": None,
}
OWNERS = list(dict.fromkeys(fictional_world(4, num_background=1).owners["owner"]))


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """The configs of the fictional world, with next to no training."""
    folder = tmp_path / "configs"
    shutil.copytree(CONFIGS, folder)
    for path in folder.glob("*.yaml"):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings |= {"max_steps": 2} if "max_steps" in settings else {}
        settings |= {"max_new_tokens": 2, "max_rows": 8} if path.stem == "measure" else {}
        if "classifier_kwargs" in settings and "num_epochs" in settings["classifier_kwargs"]:
            settings["classifier_kwargs"]["num_epochs"] = 1
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


@pytest.fixture
def benchmark(tmp_path: Path, configs: Path, recipe: Callable[..., str]) -> Callable[..., str]:
    """Runs the recipe with these settings over a small common ground."""

    def run(**settings: Any) -> str:
        common = {"dataset": "fictional", "num_owners": 4, "num_forget": 2, "configs": str(configs), "jobs": 1}
        common |= {"given": {"base": "fictional-base"}, "output_dir": str(tmp_path / "out")}
        path = tmp_path / "benchmark.yaml"
        path.write_text(yaml.safe_dump({**common, **settings}), encoding="utf-8")
        return recipe("benchmark", "--config", path)

    return run


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., str]) -> list[str]:
    """Stages run in the process of the tests; gives the names of those that did."""
    ran: list[str] = []

    def run(stage: Stage, folder: Path, environment: object) -> float:
        for name, *words in stage.commands:
            recipe(name, *words)
        ran.append(re.sub("-[0-9a-f]{8}$", "", stage.name))
        return 1.0

    monkeypatch.setattr(stages, "run_stage", run)
    return ran


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    small = functools.cache(functools.partial(fictional_world, num_background=6, num_holdout=0, num_test=1))
    monkeypatch.setattr(fictional, "fictional_world", small)


@pytest.mark.usefixtures("small_world")
def test_methods_masks_and_seeds_are_compared(
    benchmark: Callable[..., str], in_this_process: list[str], tmp_path: Path
) -> None:
    settings = {
        "masks": {"few": {"score": "random", "density": 0.1}},
        "methods": [{"method": "npo", "masks": ["dense", "few"], **BRIEF}],
        "seeds": [0, 1],
        "metrics": ["tow", "retain_rouge", "seconds"],
        "stages_dir": str(tmp_path / "stages"),
    }
    printed = benchmark(**settings)
    out = tmp_path / "out"
    rows = read_results(out / "results.json")
    assert [(row["method"], row["mask"], row["seed"]) for row in rows] == [
        (method, mask, seed)
        for seed in (0, 1)
        for method, mask in (("target", None), ("retrained", None), ("npo", None), ("npo", "few"))
    ]
    for row in rows:
        assert row["metrics"]["tow"] == 1 or row["method"] != "retrained"
        assert (row["metrics"]["retraining_gap"] == 0) == (row["method"] == "retrained")
        assert 0 <= row["metrics"]["gibberish"] <= 1
        assert (row["seconds"] is None) == (row["method"] in ("target", "retrained"))
        assert ("moved_outside_mask" in row["metrics"]) == (row["mask"] == "few")
        assert {"forget_attribution", "forget_attribution_heldout"} <= row["metrics"].keys()
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [line["seed"] for line in csv.DictReader(file)] == ["0"] * 4 + ["1"] * 4
    assert "| npo" in (out / "table.md").read_text(encoding="utf-8") and (out / "tradeoff.png").exists()
    assert "Comparison" in printed and "forget_rouge" not in (out / "table.md").read_text(encoding="utf-8")

    # What does not depend on the seed is made once; the control lacks the owners to forget
    assert in_this_process.count("test_judge") == in_this_process.count("target-seed1") == 1
    (config,) = (tmp_path / "stages" / "configs").glob("retrained-seed0-*.yaml")
    assert yaml.safe_load(config.read_text(encoding="utf-8"))["exclude_owners"] == OWNERS[2:]

    # Another benchmark over the same stages does only what is new
    in_this_process.clear()
    more = [*settings["methods"], {"method": "npo", "name": "split", "split_column": "name", **BRIEF}]
    benchmark(**{**settings, "methods": more, "num_controls": 2, "output_dir": str(tmp_path / "more")})
    new = ("measure-retrained-2", "retrained-2", "split-dense")
    stages = [name for name in in_this_process if name.endswith(("seed0", "seed1"))]  # without those of SPUNGE's parts
    assert sorted(stages) == sorted(f"{name}-seed{seed}" for seed in (0, 1) for name in new)
    again = read_results(tmp_path / "more" / "results.json")
    assert [row for row in again if row["method"] not in ("split", "retrained 2")] == rows
    controls = [row for row in again if row["method"] == "retrained 2"]
    assert [row["seed"] for row in controls] == [0, 1] and all(row["metrics"]["retraining_gap"] > 0 for row in controls)
    split = [(row.get("part"), row.get("stage")) for row in again if row["method"] == "split" and row["seed"] == 0]
    halves = [(owner, stage) for stage in ("before", "after") for owner in OWNERS[2:]]
    assert sorted(split, key=str) == sorted([*halves, (None, None)], key=str)


@pytest.mark.usefixtures("small_world")
def test_every_method_gets_as_many_trials(
    benchmark: Callable[..., str], in_this_process: list[str], tmp_path: Path
) -> None:
    methods = [{"method": "npo", "learning_rate": [1e-5, 1e-2, 3e-2], **BRIEF}]
    benchmark(methods=methods, tune=2)
    rows = read_results(tmp_path / "out" / "results.json")
    trials = [row for row in rows if "trial" in row]
    (chosen,) = (row for row in rows if row["method"] == "npo" and "trial" not in row)
    assert [row["trial"] for row in trials] == [0, 1]
    best = min(trials, key=lambda row: row["metrics"]["validation_gap"])
    assert chosen["model"] == best["model"] and chosen["metrics"] == best["metrics"]

    # Chosen on one half by the validation judge, reported on the other by the test judge
    folder = Path(chosen["model"]).parent
    before = json.loads((folder / "validation" / "measurement.json").read_text(encoding="utf-8"))
    after = json.loads((folder / "measurement.json").read_text(encoding="utf-8"))
    assert not set(before["prompts"]["forget"]) & set(after["prompts"]["forget"])
    assert not [name for name in before["metrics"] if "heldout" in name]
    assert not [name for name in after["metrics"] if "validation" in name]
    assert chosen["metrics"]["forget_rouge"] == after["metrics"]["forget_rouge"]


@pytest.mark.usefixtures("small_world")
def test_a_failed_run_is_named_and_the_others_go_on(
    benchmark: Callable[..., str],
    in_this_process: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = stages.run_stage

    def fail(stage: Stage, folder: Path, environment: object) -> float:
        if stage.name.startswith("bad"):
            raise RuntimeError("stage bad failed with exit code 7; the end of bad.log:\nout of luck")
        return run(stage, folder, environment)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "run_stage", fail)
    with pytest.raises(SystemExit) as stopped:
        benchmark(methods=[{"method": "npo", "name": "bad", **BRIEF}, {"method": "npo", **BRIEF}])
    assert stopped.value.code == 1
    assert [row["method"] for row in read_results(tmp_path / "out" / "results.json")] == ["target", "retrained", "npo"]
    assert not (tmp_path / "out" / "done").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["npo", {"method": "graddiff", "name": "npo"}]}, "Two entries are called 'npo'"),
        ({"methods": [{"method": "npo", "name": "retrained 2"}]}, "An entry is called 'retrained 2', as what it is"),
        ({"methods": ["npo"], "num_controls": 0}, "num_controls is 0: give at least one"),
        ({"methods": ["npo"], "num_controls": 2, "given": {"retrained": "x"}}, "and the control is given"),
        ({"methods": ["npoo"]}, "npoo"),
        ({"methods": [{"name": "npo"}]}, "give its method, one of"),
        ({"methods": [{"method": "npo", "lerning_rate": 1}]}, "The entry 'npo': .*lerning_rate"),
        ({"methods": [{"method": "npo", "retain_loss": "kll"}]}, "The entry 'npo': .*retain_loss"),
        ({"methods": [{"method": "npo", "loss_kwargs": {"betta": 1}}]}, "The entry 'npo': .*betta"),
        ({"methods": [{"method": "npo", "masks": ["wagle"]}]}, "names the mask 'wagle'"),
        ({"methods": [{"method": "npo", "config": "none.yaml"}]}, "has no config"),
        ({"methods": ["npo"], "tune": 2}, "2 trials, but npo has 1 settings"),
        ({"methods": ["npo"], "min_utility": 0.9}, "min_utility chooses among trials: give tune too"),
        ({"methods": ["npo"], "tune": 1, "min_utility": 2}, "min_utility is 2"),
        ({"methods": ["npo"], "given": {"bass": "x"}}, "given names 'bass'"),
        ({"methods": ["npo"], "masks": {"few": {"density": 0.1}}}, "No entry has the mask 'few'"),
        ({"methods": ["npo"], "masks": {"dense": {}}}, "masks names 'dense'"),
        ({"methods": [{"method": "npo", "split_column": "group", "merge_density": 2}]}, "merge_density"),
        ({"methods": [{"method": "npo", "split_column": "nope"}]}, "The entry 'npo': .*nope"),
        ({"methods": [{"method": "npo", "split_column": "owner", "min_part_rows": 99}]}, "at least 99"),
        ({"methods": [{"method": "rmu", "layer": 9}]}, "The entry 'rmu': layer is 9, but the model has 4"),
        ({"methods": [{"method": "idk", "refusals": None}]}, "The entry 'idk': .*needs refusals"),
        ({"methods": [{"method": "idk", "refusals": "gone.txt"}]}, "gone.txt"),
        ({"methods": [{"method": "finetune_retain", "retain_loss": "kl"}]}, "Without a forget loss"),
        ({"methods": [{"method": "task_vector", "stop_at_base_level": True}]}, "no judge can tell when to stop"),
        ({"methods": [{"method": "npo", "seed": 3}]}, "sets seed, which the benchmark itself sets"),
        ({"methods": [{"method": "npo", "masks": ["dense", "dense"]}]}, "each once"),
        ({"methods": [{"method": "npo", "learning_rate": [1e-3, 1e-3]}]}, "the same settings twice"),
        ({"methods": [{"method": "npo", "masks": "few"}], "masks": {"few": {"scroe": "wagle"}}}, "mask-few: .*scroe"),
        (
            {"methods": [{"method": "npo", "masks": "few"}], "masks": {"few": {"density": [0.1, 0.2]}}},
            "several densities",
        ),
        ({"methods": ["npo"], "given": {"test_judge": "nowhere"}}, "given names nowhere as test_judge"),
        (
            {"methods": ["npo"], "given": dict.fromkeys(("validation_judge", "test_judge"), str(CONFIGS))},
            "is named both as validation_judge and as test_judge",
        ),
        ({"methods": ["npo"], "configs": "nowhere"}, "configs is 'nowhere'"),
        ({"methods": ["npo"], "seeds": [1, 1]}, "give each once"),
        ({"methods": ["npo"], "seeds": [0, "a"]}, "give whole numbers"),
        ({"methods": ["npo"], "masks": {"w": "wagle"}}, "masks has 'wagle' for w: give a mapping of options"),
        ({"methods": ["npo"], "vary_world": True, "dataset": "x.jsonl"}, "vary_world belongs to the fictional world"),
        ({"methods": ["npo"], "forget_owners": ["Nobody"]}, "Nobody"),
        ({"methods": ["npo"], "no_such_key": 1}, "no_such_key"),
    ],
)
def test_bad_input_stops_before_anything_is_written(
    settings: dict[str, Any], message: str, benchmark: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark(**settings)
    sentence = stopped.value.code
    assert isinstance(sentence, str) and sentence.startswith("benchmark: ") and re.search(message, sentence), sentence
    assert not (tmp_path / "out").exists()


def test_a_killed_launcher_goes_on_where_it_was(
    benchmark: Callable[..., str], in_this_process: list[str], tmp_path: Path, recipe: Callable[..., str]
) -> None:
    """Three methods; the launcher is killed while the first trains, and the second start ends as one that never was."""
    # What is given spares the test its time: the base stands for target and control, one judge is made for all jobs.
    world = ["--dataset", "fictional", "--num_owners", 4]
    given = dict.fromkeys(("base", "target", "retrained"), "fictional-base")
    for role in ("classifier", "validation_judge", "test_judge"):
        recipe("train_classifier", *world, "--classifier", "tfidf", "--output_dir", tmp_path / role)
        given[role] = str(tmp_path / role / "classifier")
    brief = {**BRIEF, "per_device_train_batch_size": 4, "retain_batch_size": 4}
    dareu = {**brief, "per_device_train_batch_size": 16, "num_generations": 2, "max_completion_length": 4}
    methods = [{"method": "npo", **brief}, {"method": "graddiff", **brief}, {"method": "dareu", **dareu}]
    benchmark(methods=methods, given=given)

    command = [sys.executable, str(find_recipes()["benchmark"]), "--config", str(tmp_path / "benchmark.yaml")]
    command += ["--output_dir", str(tmp_path / "cut"), "--jobs", "2"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    with start() as launcher:
        assert launcher.stdout is not None
        for line in launcher.stdout:  # until the first run has begun
            if re.search(r"\] (npo|graddiff|dareu)-dense", line):
                os.killpg(launcher.pid, signal.SIGKILL)  # and the stages that it runs
                break
    with start() as launcher:
        log = launcher.communicate()[0]
    assert launcher.returncode == 0, log
    reused = re.search(r"Reused, since nothing that goes in has changed: (.*)\.", log)
    assert reused and "measure-" in reused[1] and "-dense" not in reused[1], log

    def results(name: str) -> list[Any]:
        timed = ("seconds", "peak_memory_bytes", "model")
        rows = read_results(tmp_path / name / "results.json")
        return [{key: value for key, value in row.items() if key not in timed} for row in rows]

    assert results("cut") == results("out")
    assert [row["method"] for row in results("cut")] == ["target", "retrained", "npo", "graddiff", "dareu"]


@pytest.mark.usefixtures("small_world")
def test_what_reads_the_base_waits_for_it(
    benchmark: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With target and control given, nothing else would make the measures wait for a base model that is made."""
    planned: list[Stage] = []
    monkeypatch.setattr(plans, "run_stages", lambda stages, folder, jobs: planned.extend(stages) or {"all": "stopped"})
    given = dict.fromkeys(("target", "retrained"), "fictional-base")
    with pytest.raises(SystemExit, match="measure that model first"):  # nothing was run: there is nothing to compare
        benchmark(methods=[{"method": "npo", **BRIEF}], given=given)
    after = {stage.name.partition("-")[0]: stage.after for stage in planned}
    for name in ("measure", "npo"):
        assert any(other.startswith("base-") for other in after[name]), name
    (config,) = (tmp_path / "out" / "stages" / "configs").glob("base-*.yaml")
    base = yaml.safe_load(config.read_text(encoding="utf-8"))
    assert base["dataset"] == "fictional-background"
    assert "num_owners" not in base, "the base model's people are the same whatever the world"
