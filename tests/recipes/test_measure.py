"""`dareu measure` with metrics that are chosen, those of a plug-in among them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.classifiers import TfidfClassifier
from dareu.data.fictional import FictionalWorld
from dareu.metrics import METRICS, check_metrics, compares

BREVITY = "dareu_example_plugin:BREVITY"
MINE = """
from dareu.metrics import Metric

def most(split, answers, *, share=1.0):
    return {f"{split}_most": share * max(map(len, answers))}

def gap(numbers, retrained):
    return {"gap": numbers["forget_most"] - retrained["forget_most"]}

def even(answers):
    return {"even": [float("nan") if row % 2 else 0.5 for row, _ in enumerate(answers)]}

def unheard(answers, mood):
    return {}

MOST, GAP, UNHEARD, NOTHING = Metric(most), Metric(gap, splits=()), Metric(unheard), most
EVEN = Metric(even)
"""


@pytest.fixture
def model(tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast) -> Path:
    """A run's model, unlearned and not yet measured."""
    folder = tmp_path / "run" / "model"
    tiny_llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    row = {"method": "npo", "mask": None, "seed": 0, "model": str(folder), "metrics": {"updates": 2}}
    row |= {"seconds": 1.0, "peak_memory_bytes": None}
    (tmp_path / "run" / "results.json").write_text(json.dumps([row]), encoding="utf-8")
    return folder


@pytest.fixture
def words(model: Path, data: list[str]) -> list[Any]:
    return [*data, "--model_name_or_path", model, "--max_rows", 2, "--max_new_tokens", 4]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return path


@pytest.fixture
def measured(recipe: Callable[..., str], words: list[Any], model: Path) -> Callable[..., dict[str, Any]]:
    """What stands in measurement.json after `dareu measure` with more words."""

    def run(*more: Any) -> dict[str, Any]:
        recipe("measure", *words, *more)
        return dict(json.loads((model.parent / "measurement.json").read_text(encoding="utf-8")))

    return run


@pytest.mark.usefixtures("plugins")
def test_a_metric_of_an_installed_package_beside_a_built_in_one(
    measured: Callable[..., dict[str, Any]], model: Path
) -> None:
    found = measured("--metrics", "answer_words", BREVITY, "--metric_kwargs", json.dumps({BREVITY: {"limit": 0}}))
    assert list(found["metrics"]) == ["forget_answer_words", "forget_brevity", "test_brevity"]
    assert found["metrics"]["forget_brevity"] == 0  # of those that say something
    assert found["answers"].keys() == {"forget", "test"} and found["prompts"].keys() == {"forget", "retain", "test"}
    (row,) = json.loads((model.parent / "results.json").read_text(encoding="utf-8"))
    assert row["metrics"] == {"updates": 2, **found["metrics"]}

    # Options and metrics are a part of what is measured
    loose = measured("--metrics", "answer_words", BREVITY)
    assert loose["metrics"]["forget_brevity"] == 1 and loose["key"] != found["key"]
    assert loose["metrics"]["forget_answer_words"] == found["metrics"]["forget_answer_words"]


def test_values_of_rows_are_kept(measured: Callable[..., dict[str, Any]], mine: Path) -> None:
    found = measured("--metrics", f"{mine}:MOST", f"{mine}:EVEN")
    assert found["metrics"]["even"] == 0.5
    assert found["rows"] == {"even": [0.5, None] * (len(found["prompts"]["forget"]) // 2)}


def test_the_source_of_a_metric_is_a_part_of_what_is_measured(
    measured: Callable[..., dict[str, Any]], mine: Path
) -> None:
    first = measured("--metrics", f"{mine}:MOST")
    assert measured("--metrics", f"{mine}:MOST") == first
    mine.write_text(f"{MINE}\n# another line\n", encoding="utf-8")
    changed = measured("--metrics", f"{mine}:MOST")
    assert changed["key"] != first["key"] and changed["metrics"] == first["metrics"]


def test_a_comparison_with_the_control_is_no_part_of_what_is_measured(
    measured: Callable[..., dict[str, Any]], model: Path, mine: Path, tmp_path: Path
) -> None:
    control = tmp_path / "control.json"
    control.write_text('{"metrics": {"forget_most": 1.5}, "rows": {}}', encoding="utf-8")
    found = measured("--metrics", f"{mine}:MOST", f"{mine}:GAP", "--retrained", control)
    assert list(found["metrics"]) == ["forget_most"]
    (row,) = json.loads((model.parent / "results.json").read_text(encoding="utf-8"))
    assert row["metrics"]["gap"] == found["metrics"]["forget_most"] - 1.5 and "tow" not in row["metrics"]
    control.write_text('{"metrics": {"forget_most": 2.5}, "rows": {}}', encoding="utf-8")
    assert measured("--metrics", f"{mine}:MOST", f"{mine}:GAP", "--retrained", control)["key"] == found["key"]
    (row,) = json.loads((model.parent / "results.json").read_text(encoding="utf-8"))
    assert row["metrics"]["gap"] == found["metrics"]["forget_most"] - 2.5


def test_what_no_metric_asks_for_is_not_loaded(
    measured: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judge").mkdir()  # holds no classifier
    monkeypatch.setattr(LlamaForCausalLM, "generate", lambda *_, **__: pytest.fail("generated"))
    given = ["--test_judge", tmp_path / "judge", "--base_model", tmp_path / "judge"]
    found = measured("--metrics", "probability", *given)
    assert list(found["metrics"]) == ["forget_probability", "retain_probability", "test_probability"]
    assert found["answers"] == {}


@pytest.mark.parametrize("damaged", ['{"key": "0", "metr', "[]", "\x00"])
def test_a_damaged_measurement_is_made_again_with_a_warning(
    damaged: str, measured: Callable[..., dict[str, Any]], model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = measured("--metrics", "probability")
    (model.parent / "measurement.json").write_text(damaged, encoding="utf-8")
    caplog.clear()
    assert measured("--metrics", "probability") == first
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "measured again" in warned and "measurement.json" in warned


def test_the_control_may_be_measured_against_itself(
    measured: Callable[..., dict[str, Any]], model: Path, world: FictionalWorld
) -> None:
    chosen = ["rouge", "probability", "fluency", "variety", "retraining_gap", "gibberish", "tow"]
    itself = model.parent / "measurement.json"
    found = measured("--metrics", *chosen, "--base_model", model, "--retrained", itself)
    (row,) = json.loads((model.parent / "results.json").read_text(encoding="utf-8"))
    assert row["metrics"]["tow"] == 1 and row["metrics"]["retraining_gap"] == 0
    values = found["rows"]["forget_base_nll"]
    broken = np.asarray(values) > np.quantile(values, 0.95)
    values = found["rows"]["forget_repetition"]
    in_circles = np.asarray(values) > max(0.2, np.quantile(values, 0.95))
    assert row["metrics"]["gibberish"] == np.mean(broken | in_circles) > 0
    assert set(found["metrics"]).isdisjoint(chosen)
    (model.parent / "measurement.json").write_text(json.dumps({**found, "rows": None}), encoding="utf-8")
    assert measured("--metrics", *chosen, "--base_model", model, "--retrained", itself) == found, "of an older dareu"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--metrics", "rogue"], "'rogue' is no built-in name"),
        (["--metrics", "{mine}:UNHEARD"], "asks for mood: there are split, rows, prompts"),
        (["--metrics", "{mine}:NOTHING"], "is a function: make it a dareu.metrics.Metric"),
        (
            ["--metrics", "rouge", "attribution"],
            "'attribution' asks for judgements, but there is no judge: give reward",
        ),
        (["--metrics", "rouge", "fluency"], "'fluency' asks for base_nll, but there is no base model: give base_model"),
        (
            ["--metrics", "rouge", "retraining_gap"],
            "'retraining_gap' asks for retrained, but there is no control: give",
        ),
        (
            ["--metrics", "rouge", "gibberish", "--retrained", "{control}"],
            "metrics lacks fluency, variety, which gibberish reads",
        ),
        (["--metrics", "fluency"], "'fluency' asks for base_nll, but there is no base model: give base_model"),
        (["--metrics", "rouge", "tow"], "'tow' asks for retrained, but there is no control: give"),
        (["--metrics", "rouge", "--retrained", "gone.json"], "gone.json does not exist"),
        (["--metrics", "tow", "--retrained", "{mine}"], "metrics names tow alone"),
        (["--metrics", "{mine}:MOST", "--metric_kwargs", '{{"{mine}:MOST": {{"sahre": 1}}}}'], "has no option sahre"),
        (["--metric_kwargs", '{{"rouge": {{"stem": 1}}}}'], "'rouge' has no option stem: its options are none"),
        (["--metrics", "rouge", "--metric_kwargs", '{{"tow": {{}}}}'], "There are options of 'tow'"),
        (["--metric_kwargs", "limit"], "metric_kwargs is 'limit': give a mapping"),
        (["--metric_kwargs", '{{"rouge": 3}}'], "metric_kwargs has 3 for rouge: give a mapping"),
        (
            ["--metrics", "sampled_facts", "--num_samples", "0"],
            "'sampled_facts' asks for samples, but num_samples is 0",
        ),
        (["--num_samples", "-1"], "num_samples is -1: give a whole number of at least 0"),
        (["--config", "{empty}"], "metrics is []: name at least one"),
        (["--reward_judge", "{mine}", "--test_judge", "{mine}"], "both as reward_judge and as test_judge"),
    ],
)
def test_a_choice_that_cannot_be_measured_stops_it_before_a_model_is_loaded(
    more: list[str],
    reason: str,
    words: list[Any],
    mine: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dareu.models.load_model", lambda *_, **__: pytest.fail("loaded"))
    (tmp_path / "empty.yaml").write_text("metrics: []\n", encoding="utf-8")
    (tmp_path / "control.json").write_text('{"metrics": {}, "rows": {}}', encoding="utf-8")
    files = {"empty": tmp_path / "empty.yaml", "control": tmp_path / "control.json"}
    given = [word.format(mine=mine, **files) for word in more]
    assert reason in refused("measure", *words, *given, output_dir=tmp_path)


def test_a_chosen_metric_needs_its_column(
    words: list[Any], data: list[str], refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "generate", lambda *_, **__: pytest.fail("generated"))
    rows = [json.loads(line) for line in Path(data[1]).read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["facts"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = ["--dataset", tmp_path / "rows.jsonl", "--metrics", "fact_recall"]
    assert "asks for facts, but the rows of the split" in refused("measure", *words, *given, output_dir=tmp_path)


def test_facts_of_samples_are_measured_on_tofu(recipe: Callable[..., str], model: Path, shared_dir: Path) -> None:
    folder = shared_dir / "data" / "tofu"
    if not (folder / "full.json").is_file():
        pytest.skip(f"no TOFU files at {folder}")
    words = ["--dataset", folder, "--num_background_owners", 198, "--num_forget", 1, "--num_samples", 2]
    words += ["--model_name_or_path", model, "--metrics", "sampled_facts", "--max_new_tokens", 4]
    recipe("measure", *words)
    found = json.loads((model.parent / "measurement.json").read_text(encoding="utf-8"))
    assert found["metrics"].keys() == found["rows"].keys() == {"sampled_facts", "any_fact_of_2", "leak_at_1"}
    assert len(found["rows"]["sampled_facts"]) == 20 and found["answers"] == {}


def test_all_metrics_are_those_of_metrics(
    measured: Callable[..., dict[str, Any]], world: FictionalWorld, tmp_path: Path, model: Path
) -> None:
    judge = TfidfClassifier("naive_bayes").fit(list(world.owners["completion"]), list(world.owners["owner"]))
    judge.save(tmp_path / "judge")
    given = ["--test_judge", tmp_path / "judge", "--base_model", model]
    compared = [name for name, needs in check_metrics(METRICS).items() if compares(needs)]
    usual = [name for name in METRICS if name not in compared and not METRICS[name].costly]
    assert set(METRICS) - set(usual) == {
        *("retraining_gap", "gibberish", "tow", "forget_quality", "privleak", "mia_gradient_norm", "lm_eval")
    }
    everything = measured(*given)
    named = measured(*given, "--metrics", *usual)
    assert {"forget_rouge", "fact_recall"} <= everything["rows"].keys()
    assert named["metrics"] == everything["metrics"] and named["answers"] == everything["answers"]
    assert {"misattribution_stripped", "forget_base_nll", "retain_fact_recall"} <= everything["metrics"].keys()
    assert everything["left_out"].keys() == set()


def test_what_is_left_out_is_told_and_forbidden_where_asked(
    measured: Callable[..., dict[str, Any]], model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = measured("--num_samples", 0)
    assert found["left_out"]["attribution"] == "there is no judge: give one" and "rouge" not in found["left_out"]
    assert any("attribution (there is no judge: give one)" in message for message in caplog.messages)
    forbidden = pytest.raises(SystemExit, match=r"Left out, which --strict forbids: .*sampled_facts \(num_samples is 0")
    with forbidden:
        measured("--num_samples", 0, "--strict")  # also where nothing is measured again
    (model.parent / "measurement.json").unlink()
    with forbidden:
        measured("--num_samples", 0, "--strict")
    assert not (model.parent / "measurement.json").exists()
    assert measured("--metrics", "rouge", "mia_gradient_norm", "--strict")["metrics"].keys() >= {"mia_gradient_norm"}


def test_rows_are_a_table(measured: Callable[..., dict[str, Any]], model: Path) -> None:
    found = measured("--metrics", "rouge", "probability", "exact_memorisation")
    rows = pandas.read_parquet(model.parent / "measurement.parquet")
    assert list(rows.columns[:7]) == ["split", "row", "owner", "prompt", "completion", "answer", "facts"]
    assert all(isinstance(fact, str) for facts in rows["facts"] for fact in facts)
    assert {name: list(part["answer"]) for name, part in rows.groupby("split")} == found["answers"]
    assert {name: list(part["prompt"]) for name, part in rows.groupby("split")} == {
        name: [prompt.strip() for prompt in prompts] for name, prompts in found["prompts"].items()
    }
    for name in ("forget_rouge", "retain_probability", "test_rouge_f1", "forget_exact_memorisation"):
        assert rows[name].mean() == pytest.approx(found["metrics"][name])
        assert set(rows[rows[name].notna()]["split"]) == {name.partition("_")[0]}
        low, high = found["intervals"][name]
        assert low <= found["metrics"][name] <= high


def test_a_run_that_was_copied_has_its_own_results(
    recipe: Callable[..., str], measured: Callable[..., dict[str, Any]], words: list[Any], model: Path, tmp_path: Path
) -> None:
    """Its row names the model where it was trained."""
    measured("--metrics", "probability")
    copied = shutil.copytree(model.parent, tmp_path / "copy")
    before = (model.parent / "results.json").read_bytes()
    recipe("measure", *words, "--model_name_or_path", copied / "model", "--metrics", "rouge")
    (row,) = json.loads((copied / "results.json").read_text(encoding="utf-8"))
    assert "forget_rouge" in row["metrics"] and "forget_probability" not in row["metrics"]
    assert (model.parent / "results.json").read_bytes() == before


def test_a_table_that_a_kill_left_out_is_made(measured: Callable[..., dict[str, Any]], model: Path) -> None:
    found = measured("--metrics", "probability")
    table = model.parent / "measurement.parquet"
    table.unlink()
    assert measured("--metrics", "probability") == found and table.exists()

    # A measurement whose texts were taken out stays as it is
    table.unlink()
    cleaned = {**found, "answers": {}, "prompts": {}}
    (model.parent / "measurement.json").write_text(json.dumps(cleaned), encoding="utf-8")
    assert measured("--metrics", "probability") == cleaned and not table.exists()


def test_a_measurement_stands_beside_no_table_of_another(
    measured: Callable[..., dict[str, Any]], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    first = measured("--metrics", "probability")
    with monkeypatch.context() as patch:
        patch.setattr("dareu.runs.write_measurement", killed)
        with pytest.raises(KeyboardInterrupt):
            measured("--metrics", "probability", "--max_rows", 1)
    assert measured("--metrics", "probability") == first
    rows = pandas.read_parquet(model.parent / "measurement.parquet")
    assert {name: len(part) for name, part in rows.groupby("split")} == {n: len(p) for n, p in first["prompts"].items()}


def test_what_was_measured_otherwise_leaves_the_results(
    measured: Callable[..., dict[str, Any]], model: Path, tmp_path: Path
) -> None:
    def row() -> dict[str, Any]:
        (found,) = json.loads((model.parent / "results.json").read_text(encoding="utf-8"))
        return dict(found)

    measured("--metrics", "probability")
    control = tmp_path / "control.json"
    control.write_bytes((model.parent / "measurement.json").read_bytes())
    chosen = ["--metrics", "rouge", "probability", "retraining_gap"]
    measured(*chosen, "--retrained", control)
    assert row()["metrics"].keys() >= {"retraining_gap", "forget_rouge", "updates"}
    found = measured("--metrics", "probability", "--max_rows", 1)
    assert row()["metrics"] == {"updates": 2, **found["metrics"]} and row()["measured"] == sorted(found["metrics"])
