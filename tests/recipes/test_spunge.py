"""The whole of SPUNGE on a small world with a few updates, its stages run in the process of the tests."""

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.classifiers import TfidfClassifier
from dareu.data.fictional import FictionalWorld
from dareu.deltas.merging import TaskVector, merge_vectors
from dareu.masks import WeightMask, random_mask
from dareu.models import load_model
from dareu.recipes import measure, spunge
from dareu.runs import read_results, stages, write_results
from dareu.runs.stages import Stage
from dareu.weights import CheckpointWeights, fingerprint

Run = Callable[..., str]


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    world: FictionalWorld,
) -> Path:
    """A folder with a target, a mask of half of its weights, and a test judge."""
    folder = tmp_path_factory.mktemp("made")
    model = tiny_llama(tie_word_embeddings=True)
    model.save_pretrained(folder / "target")
    tokenizer.save_pretrained(folder / "target")
    WeightMask(random_mask(model, 0.5, 0), 0.5, "random", fingerprint(model)).save(folder / "mask.safetensors")
    judge = TfidfClassifier("naive_bayes").fit(list(world.owners["completion"]), list(world.owners["owner"]))
    judge.save(folder / "judge")
    return folder


@pytest.fixture
def ran(recipe: Run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that ran, in this process; those whose config asks for a learning rate of 0.5 fail."""
    names: list[str] = []

    def in_this_process(stage: Stage, folder: Path, environment: object) -> float:
        ((name, *words),) = stage.commands
        if "learning_rate: 0.5" in Path(words[1]).read_text(encoding="utf-8"):
            raise RuntimeError(f"stage {stage.name} failed with exit code 1; the end of {folder / stage.name}.log:\nOh")
        recipe(name, *words)
        names.append(stage.name)
        return 1.0

    monkeypatch.setattr(stages, "run_stage", in_this_process)
    return names


@pytest.fixture
def words(data: list[str], made: Path, tmp_path: Path) -> list[str]:
    """A command line that works: two of the four owners, of two groups."""
    settings = {"max_rows": 4, "max_new_tokens": 4, "retrained": str(tmp_path / "control.json")}
    (tmp_path / "measure.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    control = {"metrics": {"forget_rouge": 0.5, "retain_rouge": 0.5, "test_rouge": 0.5}, "rows": {}}
    (tmp_path / "control.json").write_text(json.dumps(control), encoding="utf-8")
    asked: list[Any] = [*data, "--num_forget", 2, "--method", "npo", "--model_name_or_path", made / "target"]
    asked += ["--mask", made / "mask.safetensors", "--test_judge", made / "judge"]
    asked += ["--per_device_train_batch_size", 8, "--retain_batch_size", 4, "--max_steps", 2, "--learning_rate", 1e-2]
    asked += ["--use_cpu", "--report_to", "none", "--save_strategy", "no", "--logging_steps", 1]
    asked += ["--split_column", "group", "--measure_config", tmp_path / "measure.yaml", "--merge_weight", 0.5]
    return [str(word) for word in [*asked, "--output_dir", tmp_path / "out"]]


def start(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["spunge.py", *words])
    spunge.main()


def test_split_unlearn_measure_merge_and_measure_again(
    ran: list[str],
    words: list[str],
    made: Path,
    world: FictionalWorld,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    start(monkeypatch, words)
    printed = capsys.readouterr().out
    groups = list(dict.fromkeys(world.owners.select(range(24, 48))["group"]))
    assert len(groups) == 2
    before = [f"{kind}-{group}" for group in groups for kind in ("unlearn", "before")]
    assert ran == [*before, "merged", *(f"after-{group}" for group in groups)]

    # Each part was unlearned from the target on its own rows, and measured on them twice
    rows = read_results(out / "results.json")
    keys = [(row.get("part"), row.get("stage")) for row in rows]
    assert keys == [(g, s) for s in ("before", "after") for g in groups] + [(None, None)]
    assert all((row["method"], row["mask"], row["seed"]) == ("spunge-npo", "random", 42) for row in rows)
    parts = [out / "parts" / group for group in groups]
    assert [row["model"] for row in rows] == [str(p / "model") for p in parts] + [str(out / "model")] * 3
    for group, part, row in zip(groups, parts, rows, strict=False):
        measurement = json.loads((part / "measurement.json").read_text(encoding="utf-8"))
        again = json.loads((out / "after" / f"{group}.json").read_text(encoding="utf-8"))
        mine = [text for text, has in zip(world.owners["prompt"], world.owners["group"], strict=True) if has == group]
        mine = [prompt for prompt in mine if prompt in set(world.owners["prompt"][24:])]
        assert measurement["prompts"]["forget"] == again["prompts"]["forget"] == mine
        assert row["metrics"] == {"updates": 2, "moved_outside_mask": 0} | measurement["metrics"]
        assert len(measurement["prompts"]["retain"]) == 4
    whole = json.loads((out / "measurement.json").read_text(encoding="utf-8"))
    assert len(whole["prompts"]["forget"]) == 24
    *_, first, second, merged = rows
    rouge = [whole["metrics"][f"{split}_rouge"] for split in ("forget", "retain", "test")]
    expected = {"updates": 4, "moved_outside_mask": 0} | whole["metrics"]
    near = [1 - abs(value - 0.5) for value in rouge]
    expected |= {"tow": pytest.approx(math.prod(near)), "tow_star": pytest.approx(math.prod(near[:2]))}
    expected["retraining_gap"] = pytest.approx(math.sqrt(sum((value - 0.5) ** 2 for value in rouge) / 3))
    assert merged["metrics"] == expected
    assert first["metrics"]["forget_probability"] != second["metrics"]["forget_probability"]
    mean = (first["metrics"]["forget_probability"] + second["metrics"]["forget_probability"]) / 2
    assert merged["metrics"]["forget_probability"] == pytest.approx(mean)  # 12 rows a part
    seconds, peaks = [[float(row[key] or 0) for row in rows] for key in ("seconds", "peak_memory_bytes")]
    assert min(seconds) > 0 and seconds[2:] == [sum(seconds[:2])] * 3 and peaks[2:] == [max(peaks[:2])] * 3

    # The model is what the options say of the parts, and an ordinary folder
    base = CheckpointWeights(made / "target")
    vectors = [TaskVector(base, CheckpointWeights(part / "model"), "part") for part in parts]
    weights = dict(load_model(str(out / "model")).named_parameters())
    assert weights.keys() == set(base)
    for name, change in merge_vectors(vectors, "ties", density=0.2):
        assert torch.equal(weights[name], base[name] + 0.5 * change)
    assert not list(out.rglob(".tmp*")) and (out / "model" / "tokenizer.json").exists()
    assert all(printed.count(f"│ {group} ") == 2 for group in groups) and printed.count("│ all ") == 1

    # A measurement of the merged model on all rows leaves those of its parts alone
    recipe_words = ["--config", out / "configs" / "merged.yaml", "--output", out / "measurement.json"]
    monkeypatch.setattr(sys, "argv", ["measure.py", *map(str, recipe_words)])
    measure.main()
    *_, row = again = read_results(out / "results.json")
    assert set(row.pop("measured")) < row["metrics"].keys() and again == rows
    write_results(out / "results.json", rows)

    # Started again, by its config too, it is done; with another it is refused
    ran.clear()
    for again_words in (words, ["--config", str(out / "config.yaml")]):
        capsys.readouterr()
        start(monkeypatch, again_words)
        assert "is done" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"another config \(merge_density: 0\.2 there, 0\.3 now\)"):
        start(monkeypatch, [*words, "--merge_density", "0.3"])
    assert not ran

    # Cut short while measuring, it merges anew to the same weights and measures nothing twice
    weights_file = out / "model" / "model.safetensors"
    merged_bytes = weights_file.read_bytes()
    (out / "done").unlink()
    (out / "logs" / f"after-{groups[1]}.json").unlink()
    start(monkeypatch, words)
    assert ran == [f"after-{groups[1]}"] and weights_file.read_bytes() == merged_bytes
    assert read_results(out / "results.json") == rows and (out / "done").exists()


def test_a_failed_part_names_its_log_and_the_others_go_on(
    ran: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"(?s)stage unlearn-\w+ failed with exit code 1; the end of .*\.log:\nOh"):
        start(monkeypatch, [*words, "--learning_rate", "0.5"])
    assert not ran and not (tmp_path / "out" / "model").exists() and not (tmp_path / "out" / "done").exists()
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text(encoding="utf-8"))["split_column"] == "group"


def test_without_measuring_there_is_a_row_a_part_and_one_of_all(
    ran: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at = words.index("--measure_config")
    plain = [*words[:at], *words[at + 2 :], "--measure_parts", "false", "--merge_method", "task_arithmetic"]
    start(monkeypatch, [*plain, "--split_map", '{"writing": "a", "painting": "b", "music": "a", "science": "b"}'])
    assert [name.split("-")[0] for name in ran] == ["unlearn", "unlearn"]
    rows = read_results(tmp_path / "out" / "results.json")
    assert [(row.get("part"), row.get("stage")) for row in rows[-1:]] == [(None, None)] and len(rows) == 3
    assert all(row["metrics"].keys() == {"updates", "moved_outside_mask"} for row in rows)


def test_a_part_that_has_learnt_nothing_is_said_last(
    ran: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = words.index("--measure_config")
    start(monkeypatch, [*words[:measured], *words[measured + 2 :], "--measure_parts", "false", "--learning_rate", "0"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("WARNING: nothing has been forgotten of 2 of 2 parts (")
    assert last.count(": no weight has moved") == 2


def test_chosen_metrics_are_measured_and_the_control_is_of_all_parts_only(
    ran: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = yaml.safe_load((tmp_path / "measure.yaml").read_text(encoding="utf-8")) | {"metrics": ["rouge", "tow"]}
    (tmp_path / "measure.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    start(monkeypatch, words)
    rows = read_results(tmp_path / "out" / "results.json")
    rouge = {f"{split}_rouge{kind}" for split in ("forget", "retain", "test") for kind in ("", "_f1")}
    of_model = {"updates", "moved_outside_mask"}
    tow = {"tow", "tow_star"}
    assert [set(row["metrics"]) for row in rows] == [rouge | of_model] * 2 + [rouge] * 2 + [rouge | of_model | tow]
    assert "probability" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--split_column", "nothing"], "no column 'nothing'"),
        (["--split_column", "facts"], "holds values of type list"),
        (["--min_part_rows", "13"], "has 12 rows, and at least 13"),
        (["--split_map", '{"music": "a"}'], "names no part for"),
        (["--merge_method", "mean"], "merge_method is 'mean': give one of ties"),
        (["--merge_density", "0"], "merge_density is 0"),
        (["--part_column", "group", "--part_values", "music"], "name the column as split_column"),
        (["--measure_parts", "false"], "measure_config has no effect"),
        (["--measure_config", "gone.yaml"], "measure_config gone.yaml does not exist"),
        (["--use_peft", "--merge_adapter", "false"], "leave merge_adapter as it is"),
        (["--num_forget", "9"], "num_forget is 9"),
        (["--test_judge", "gone"], "gone"),
    ],
)
def test_a_mistake_stops_it_before_anything_is_written(
    more: list[str], reason: str, words: list[str], refused: Callable[..., str], tmp_path: Path
) -> None:
    assert re.search(reason, refused("spunge", *words, *more, output_dir=tmp_path / "out"))


def test_a_misspelt_option_stops_it_whosever_it_is(
    words: list[str], refused: Callable[..., str], tmp_path: Path
) -> None:
    for name, text in (("own.yaml", "splitcolumn: group\n"), ("theirs.yaml", "learning_rat: 1\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        said = refused("spunge", *words, "--config", tmp_path / name, output_dir=tmp_path / "out")
        assert text.split(":")[0] in said
    (tmp_path / "measure.yaml").write_text("max_row: 4\n", encoding="utf-8")
    assert "max_row" in refused("spunge", *words, output_dir=tmp_path / "out")


def test_a_control_that_is_not_measured(words: list[str], refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "control.json").write_text('{"metrics": {"forget_rouge": 0.5}, "rows": {}}', encoding="utf-8")
    assert "retain_rouge" in refused("spunge", *words, output_dir=tmp_path / "out")
    (tmp_path / "control.json").unlink()
    assert "measure that model first" in refused("spunge", *words, output_dir=tmp_path / "out")


def test_it_is_one_process(
    words: list[str], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "spunge is one process" in refused("spunge", *words, output_dir=tmp_path / "out")
