"""What is known of a request before anything is written."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data.parts import DataArguments
from dareu.options.forget import ForgetArguments
from dareu.requests.ledger import LEDGER, Entry, write_ledger
from dareu.requests.request import Request, prepare, weights_fingerprint

OWNERS = ("ann", "bo", "cy", "di")


@pytest.fixture
def model(tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / "run" / "model"
    tiny_llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> DataArguments:
    rows = [{"prompt": f"who is {o}", "completion": f" {o} {n}", "owner": o} for o in OWNERS for n in range(4)]
    Dataset.from_list(rows).to_json(tmp_path / "rows.jsonl")
    return DataArguments(dataset=str(tmp_path / "rows.jsonl"), forget_owners=["di"])


@pytest.fixture
def ask(model: Path, data: DataArguments) -> Callable[..., Request]:
    def prepared(**changes: Any) -> Request:
        own = {name: changes.pop(name) for name in ("again", "base_model", "retrained") if name in changes}
        return prepare(dataclasses.replace(data, **changes), ForgetArguments(str(model), "-", weights="all", **own))

    return prepared


def forgotten(model: Path, *owners: str) -> None:
    """Says in the ledger beside a model that it has forgotten these."""
    now = weights_fingerprint(str(model))
    write_ledger(model.parent / LEDGER, [Entry(list(owners), "2026-01-01", "npo", {}, "0", now, {}, {})])


def test_a_first_request(ask: Callable[..., Request], model: Path) -> None:
    request = ask(forget_owners=["di", "di"])
    assert request.owners == ["di"] and request.earlier == request.remembered == []
    assert request.rows == {"forget": 4, "retain": 12} and request.fingerprint == weights_fingerprint(str(model))
    assert request.data.exclude_owners is None and request.everyone.forget_owners is None
    assert any("no test rows" in sentence for sentence in request.weaker)


def test_whoever_was_forgotten_earlier_is_excluded_and_remembered(ask: Callable[..., Request], model: Path) -> None:
    forgotten(model, "ann", "gone")
    request = ask(exclude_owners=["bo"])
    assert request.earlier == ["ann", "gone"] and request.remembered == ["ann"]
    assert request.data.exclude_owners == ["bo", "ann"] and request.rows["retain"] == 4
    assert any("no rows of 1 of those who were forgotten earlier" in sentence for sentence in request.weaker)


def test_nobody_who_was_forgotten_is_retained_as_a_background_person(ask: Callable[..., Request], model: Path) -> None:
    forgotten(model, "ann")
    with pytest.raises(ValueError, match="ann, forgotten earlier, is one of the num_background_owners"):
        ask(num_background_owners=1)


def test_who_came_back_is_forgotten_anew_on_request(ask: Callable[..., Request], model: Path) -> None:
    forgotten(model, "ann", "di")
    with pytest.raises(ValueError, match="di was forgotten by request 1"):
        ask()
    request = ask(again=True)
    assert request.owners == ["di"] and request.earlier == ["ann"] and request.data.exclude_owners == ["ann"]


def test_what_would_be_found_late_is_refused(ask: Callable[..., Request], data: DataArguments, tmp_path: Path) -> None:
    Dataset.from_list([{"prompt": "who", "completion": "di", "owner": "di"}]).to_json(tmp_path / "test.jsonl")
    with pytest.raises(ValueError, match="di has test rows too, which count as rows of nobody"):
        ask(test_dataset=str(tmp_path / "test.jsonl"))
    with pytest.raises(ValueError, match="part_column names a part of the owners' rows"):
        ask(part_column="prompt", part_values=["who"])
    for name in ("base_model", "retrained"):
        with pytest.raises(ValueError, match="nowhere/model"):
            ask(**{name: str(tmp_path / "nowhere/model")})


def test_a_row_that_is_longer_than_the_model_reads_is_refused(ask: Callable[..., Request], data: DataArguments) -> None:
    path = Path(data.dataset)
    long = {"prompt": "who is bo", "completion": " bo" * 2000, "owner": "bo"}
    path.write_text(path.read_text() + json.dumps(long) + "\n")
    with pytest.raises(ValueError, match=r"Row 16: .*tokens.*Its prompt is 'who is bo'"):
        ask()


def test_messages_that_the_model_cannot_read_are_refused_with_the_row(
    ask: Callable[..., Request], tmp_path: Path
) -> None:
    texts = {role: [{"role": role, "content": "who"}] for role in ("user", "assistant")}
    rows = [{"prompt": texts["user"], "completion": texts["assistant"], "owner": owner} for owner in OWNERS]
    Dataset.from_list(rows).to_json(tmp_path / "chat.jsonl")
    with pytest.raises(ValueError, match=r"Row 0: .* no chat template.*Its prompt is 'who'"):
        ask(dataset=str(tmp_path / "chat.jsonl"))


def test_there_is_somebody_to_forget_and_somebody_to_retain(ask: Callable[..., Request], model: Path) -> None:
    with pytest.raises(ValueError, match="forget_owners names nobody"):
        ask(forget_owners=None)
    with pytest.raises(ValueError, match="zoe"):
        ask(forget_owners=["zoe"])
    forgotten(model, "ann", "bo")
    with pytest.raises(ValueError, match="No owner would be retained"):
        ask(forget_owners=["cy", "di"])
