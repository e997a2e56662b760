"""`dareu forget`: one command from a request to a model, and the next request on that model."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dareu.data.fictional import FictionalWorld
from dareu.models import new_llama, new_tokenizer
from dareu.recipes.forget import chosen_rate
from dareu.requests.ledger import LEDGER, MARK, read_ledger
from dareu.requests.planning import Trial
from dareu.runs import read_results, stages, write_results
from dareu.runs.holdings import holdings
from dareu.runs.stages import Stage
from dareu.weights import CheckpointWeights, fingerprint

#: As little as can be trained and measured.
ROWS = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
SMALL = {
    "--max_steps": 2,
    "--weights": "all",
    "--unlearn_kwargs": json.dumps(
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "validation_steps": 0}
    ),
    "--measure_kwargs": json.dumps({"num_samples": 1, "max_new_tokens": 4, "max_rows": 8}),
    "--audit": "none",
}


@pytest.fixture(scope="session")
def people(world: FictionalWorld) -> list[str]:
    return list(dict.fromkeys(world.owners["owner"]))


@pytest.fixture(scope="module")
def model(world: FictionalWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model whose tokens are long, for it fills every answer to the last."""
    rows = world.owners
    texts = [prompt + completion for prompt, completion in zip(rows["prompt"], rows["completion"], strict=True)]
    tokenizer = new_tokenizer(texts, 1000)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    folder = tmp_path_factory.mktemp("model") / "model"
    new_llama(tokenizer, max_position_embeddings=256, **shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def in_this_process(recipe: Callable[..., str]) -> Iterator[None]:
    """Stages run here, where the libraries are imported already."""

    def run_stage(stage: Stage, folder: Path, environment: object) -> float:
        for name, *words in stage.commands:
            try:
                recipe(name, *words)
            except SystemExit as error:
                raise RuntimeError(f"stage {stage.name} failed with exit code 1: {error}") from error
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "run_stage", run_stage)
        yield


@pytest.fixture(scope="module")
def forget(recipe: Callable[..., str], data: list[str], model: Path) -> Callable[..., str]:
    """`forget(owner, output_dir, target, …)`: carries out a request on the model, or another one."""

    def run(owner: str, folder: Path, *words: Any, target: Path = model, **options: Any) -> str:
        chosen = (
            {"--learning_rate": 1e-3, "--method": "npo"}
            | SMALL
            | {f"--{name}": value for name, value in options.items()}
        )
        given = [*data, "--model_name_or_path", target, "--base_model", model, "--stages_dir", folder.parent / "stages"]
        asked = ["--forget_owners", owner, "--output_dir", folder]
        return recipe("forget", *given, *asked, *(word for option in chosen.items() for word in option), *words)

    return run


@pytest.fixture(scope="module")
def done(forget: Callable[..., str], people: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a request that is carried out, for its first owner."""
    folder = tmp_path_factory.mktemp("requests") / "one"
    forget(people[0], folder, learning_rate="auto", max_steps=3, audit="quick")
    return folder


def stages_of(folder: Path, recipe: str) -> list[dict[str, Any]]:
    """The options of every command of a recipe that a request planned."""
    said = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    commands = [command.split() for command in said["commands"]]
    configs = [words[words.index("--config") + 1] for words in commands if words[1] == recipe]
    return [yaml.safe_load(Path(config).read_text(encoding="utf-8")) for config in configs]


def test_what_a_request_leaves(done: Path, model: Path, people: list[str]) -> None:
    assert {"model", "patch.safetensors", "report.html", "results.json", LEDGER, "done"} <= {
        path.name for path in done.iterdir()
    }
    said = json.loads((done / "request.json").read_text(encoding="utf-8"))
    assert said["owners"] == people[:1] and said["done"]
    (entry,) = read_ledger(done / LEDGER)
    assert entry.fingerprint_before == fingerprint(CheckpointWeights(model))
    assert entry.fingerprint_after == fingerprint(CheckpointWeights(done / "model")) != entry.fingerprint_before
    assert entry.by_owner.keys() == {people[0]} and "forget_rouge" in entry.by_owner[people[0]]
    (row,) = read_results(done / "results.json")
    assert row["model"] == str(done / "model") and "forget_rouge" in row["metrics"]
    card, mark = ((done / "model" / name).read_text(encoding="utf-8") for name in ("README.md", MARK))
    assert people[0] not in card + mark and "forget 1 owner" in card
    page = (done / "report.html").read_text(encoding="utf-8")
    assert people[0] in page and "templated" in page
    trials = [options["output_dir"] for options in stages_of(done, "unlearn") if options["max_steps"] == 1]
    assert len(trials) == 3 and not any((Path(trial) / "model").exists() for trial in trials)


def test_started_again_nothing_is_done_again(
    done: Path, forget: Callable[..., str], people: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.parent.glob("stages/*/*")}
    entries = read_ledger(done / LEDGER)
    caplog.set_level("INFO")
    printed = forget(people[0], done, learning_rate="auto", max_steps=3, audit="quick")
    assert "Everybody who was forgotten, now" in printed and " took " not in caplog.text
    assert {path: path.stat().st_mtime_ns for path in done.parent.glob("stages/*/*")} == before
    assert read_ledger(done / LEDGER) == entries


def test_three_requests_in_a_row(
    done: Path, forget: Callable[..., str], people: list[str], model: Path, world: FictionalWorld
) -> None:
    folder, printed = done, ""
    for number, owner in enumerate(people[1:3], start=2):
        target, folder = folder / "model", done.parent / str(number)
        printed = forget(owner, folder, target=target)
    entries = read_ledger(folder / LEDGER)
    assert [entry.owners for entry in entries] == [[owner] for owner in people[:3]]
    assert [entry.fingerprint_before for entry in entries[1:]] == [entry.fingerprint_after for entry in entries[:-1]]
    assert entries[-1].by_owner.keys() == set(people[:3])
    assert all(owner in printed for owner in people[:3])
    assert json.loads((folder / "model" / MARK).read_text()) == {"requests": 3, "owners": 3}
    (unlearn,) = stages_of(folder, "unlearn")
    assert unlearn["exclude_owners"] == people[:2] and unlearn["forget_owners"] == people[2:3]
    measured = stages_of(folder, "measure")
    earlier = [options for options in measured if options["forget_owners"] == people[:2]]
    assert len(earlier) == 2 and all(options["exclude_owners"] == people[2:3] for options in earlier)
    with pytest.raises(SystemExit, match=f"{people[0]} was forgotten by request 1: leave that name out"):
        forget(people[0], done.parent / "again", target=folder / "model")
    alone = done.parent / "elsewhere"
    shutil.copytree(folder / "model", alone / "model")
    with pytest.raises(SystemExit, match=r"made by an earlier request, and there is no requests.jsonl beside it"):
        forget(people[3], done.parent / "again", target=alone / "model")
    with pytest.raises(SystemExit, match="lacks requests that were made of the model"):
        forget(people[3], done.parent / "again", "--ledger", done / LEDGER, target=alone / "model")
    assert not (done.parent / "again").exists()


def test_the_rate_is_that_of_the_nearest_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [Trial(rate, tmp_path / str(rate)) for rate in (1e-4, 2e-4, 4e-4)]
    facts: dict[str, Any] = {"method": "npo", "weaker": []}
    assert chosen_rate(trials, facts) == 2e-4 and facts["trials"] == []
    assert facts["weaker"] == ["npo is not judged in training: its rate 0.0002 was not chosen by trial."]
    fixed: Any = {"method": "npo", "mask": None, "seed": 0, "model": "m", "seconds": 1.0, "peak_memory_bytes": 1}
    for trial, gap in ((trials[0], 0.2), (trials[2], 0.1)):  # the other one failed
        write_results(trial.folder / "results.json", [{**fixed, "metrics": {"best_gap": gap}}])
    assert chosen_rate(trials, facts) == 4e-4
    assert facts["trials"] == [{"learning_rate": 1e-4, "gap": 0.2}, {"learning_rate": 4e-4, "gap": 0.1}]
    assert "Learning rate 0.0004, whose trial came nearest" in capsys.readouterr().out


def test_where_nothing_was_forgotten_nothing_is_handed_over(
    forget: Callable[..., str], people: list[str], done: Path
) -> None:
    folder = done.parent / "vain"
    still = json.dumps({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "weight_decay": 0.0})
    with pytest.raises(SystemExit, match=r"Nothing was forgotten: .* Nothing is handed over; the page says more"):
        forget(people[0], folder, learning_rate=1e-30, unlearn_kwargs=still)
    assert (folder / "report.html").exists()
    assert not any((folder / name).exists() for name in ("model", LEDGER, "patch.safetensors", "done"))


def test_a_plan_does_nothing(forget: Callable[..., str], people: list[str], tmp_path: Path) -> None:
    printed = forget(people[0], tmp_path / "out", "--plan", learning_rate="auto")
    assert (
        "validation_judge-" in printed
        and "dareu unlearn" in printed
        and "Roughly" in printed
        and "GB of disk" in printed
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("weights", "method"), [("mask", "dareu"), ("lora", "npo")])
def test_the_other_weights(
    forget: Callable[..., str], people: list[str], done: Path, weights: str, method: str
) -> None:
    folder = done.parent / weights
    printed = forget(people[0], folder, weights=weights, method=method, density=0.5)
    assert "as was asked" in printed and "Weaker" not in printed
    (options,) = stages_of(folder, "unlearn")
    assert options.get("use_peft", False) == (weights == "lora") and ("mask" in options) == (weights == "mask")
    rewarded = method == "dareu"
    assert ("classifier" in options) == ("reward_judge" in stages_of(folder, "measure")[0]) == rewarded
    (row,) = read_results(folder / "results.json")
    assert row["method"] == method and row["metrics"].get("moved_outside_mask", 0) == 0


def test_rows_alone_are_enough_and_what_is_weaker_is_said(
    recipe: Callable[..., str], world: FictionalWorld, people: list[str], model: Path, tmp_path: Path
) -> None:
    columns = ["prompt", "completion", "owner"]
    world.owners.select_columns(columns).to_json(tmp_path / "rows.jsonl")
    words = [word for option in SMALL.items() for word in option]
    asked = ["--dataset", tmp_path / "rows.jsonl", "--forget_owners", *people[:2]]
    asked += ["--learning_rate", 1e-3, "--method", "npo"]
    given = ["--model_name_or_path", model, "--output_dir", tmp_path / "out"]
    printed = recipe("forget", *given, *asked, *words)
    for reason in ("No base model is given", "no answers in other words", "no test rows", "no facts"):
        assert reason in printed
    assert len(read_ledger(tmp_path / "out" / LEDGER)) == 1


def test_a_stage_that_fails_leaves_a_page_and_is_gone_on_with(
    forget: Callable[..., str], people: list[str], tmp_path: Path, done: Path
) -> None:
    broken = {"unlearn_kwargs": json.dumps({"loss_kwargs": {"beta": -1.0}})}
    with pytest.raises(SystemExit, match="failed with exit code"):
        forget(people[0], done.parent / "broken", **broken)
    assert (done.parent / "broken" / "report.html").exists() and not (done.parent / "broken" / "done").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--forget_owners", "Nobody"], "Nobody"),
        (["--learning_rate", "fast"], "learning_rate is 'fast': give a number above 0, or 'auto'"),
        (["--learning_rate", "-1"], "learning_rate is '-1': give a number above 0"),
        (["--weights", "some"], "weights is 'some': give one of auto, all, mask, lora"),
        (["--audit", "thorough"], "audit is 'thorough': give one of quick, full, none"),
        (["--density", "0"], "density is 0.0: give a share in"),
        (["--hub_model_id", "me/it"], "push_to_hub uploads to: give that too"),
        (["--classifier", "nowhere"], "classifier is nowhere, which is no folder"),
        (["--method", "forgetting"], "is no built-in name"),
        (["--unlearn_kwargs", '{"max_stepz": 1}'], "max_stepz"),
        (
            ["--unlearn_kwargs", '{"exclude_owners": []}'],
            "unlearn_kwargs sets exclude_owners, which the request",
        ),
        (["--audit", "quick", "--audit_kwargs", '{"max_rowz": 1}'], "max_rowz"),
        (["--model_name_or_path", "nowhere/model"], "nowhere/model"),
    ],
)
def test_bad_input_stops_before_anything_is_written(
    forget: Callable[..., str], people: list[str], tmp_path: Path, words: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit, match=reason):
        forget(people[0], tmp_path / "out", *words)
    assert list(tmp_path.iterdir()) == []


def test_nobody_to_forget(recipe: Callable[..., str], data: list[str], model: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="forget_owners names nobody: name those who ask to be forgotten"):
        recipe("forget", *data, "--model_name_or_path", model, "--output_dir", tmp_path / "out")


def test_a_run_that_was_cleaned_is_not_gone_on_with(
    forget: Callable[..., str], people: list[str], done: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    assert {holding.path.name for holding in holdings(folder)} == {"report.html"}  # its stages stand elsewhere
    options = {"learning_rate": "auto", "max_steps": 3, "audit": "quick"}
    (folder / "cleaned.json").write_text("{}")
    with pytest.raises(SystemExit, match="was cleaned: what it would go on from is gone"):
        forget(people[0], folder, **options)
    (folder / "cleaned.json").unlink()
