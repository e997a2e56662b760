"""The record contract and the one place that splits."""

from typing import Any

import pytest
from datasets import Dataset

from dareu.data import check_records, forget_retain_split, take_fold, text_of

USER = [{"role": "user", "content": "Who?"}]
ASSISTANT = [{"role": "assistant", "content": "Ada."}]


def records(owners: list[Any], **columns: list[Any]) -> Dataset:
    texts = {
        "prompt": [f"Q{i}?" for i in range(len(owners))],
        "completion": [f" A{i}." for i in range(len(owners))],
    }
    return Dataset.from_dict(texts | {"owner": owners} | columns)


def test_valid_records_pass():
    check_records(records(["ada", "bob"]))
    check_records(records(["ada", "bob"], prompt=[USER, USER], completion=[ASSISTANT, ASSISTANT]))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            records(["a"]).remove_columns("completion"),
            r"no column 'completion'; its columns are 'prompt', 'owner'",
        ),
        (
            records(["a"]).remove_columns("owner"),
            r"no column 'owner'; its columns are 'prompt', 'completion'",
        ),
        (records(["a", "b"], completion=[1, 2]), r"Row 0: the completion is of type int.*convert it"),
        (
            records(["a", "b"], completion=["x", None]),
            r"Row 1: the completion is missing \(None\).*drop the row",
        ),
        (records(["a", "b"], completion=["x", " \n"]), r"Row 1: the completion is empty: fill it in"),
        (records(["a", "b"], prompt=["x", None]), r"Row 1: the prompt is missing \(None\).*convert it"),
        (
            records(["a"], prompt=[USER]),
            r"Row 0: the prompt is a message list and the completion is a string",
        ),
        (
            records(["a"], completion=[ASSISTANT]),
            r"Row 0: the prompt is a string and the completion is a message",
        ),
        (
            records(["a"], completion=['[{"role": "assistant", "content": "x"}]']),
            "Row 0: the completion is a text that",
        ),
        (records(["a"], completion=["[{'content': 'x', 'role': 'assistant'}]"]), "spells messages: give them as lists"),
        (records(["a"], prompt=[USER], completion=[USER]), r"Row 0: the completion has the roles 'user'"),
        (
            records(["a"], prompt=[USER], completion=[ASSISTANT * 2]),
            r"Row 0: .*must be one assistant message",
        ),
        (
            records(["a"], prompt=[[{"role": None, "content": "Who?"}]], completion=[ASSISTANT]),
            r"Row 0: the prompt",
        ),
        (
            records(["a"], prompt=[[{"role": "user", "content": None}]], completion=[ASSISTANT]),
            r"Row 0: the prompt",
        ),
        (records([7, 8]), r"Row 0: the owner is of type int.*str\(\)"),
        (records(["a", None]), r"Row 1: the owner is missing \(None\)"),
        (records(["a", " "]), r"Row 1: the owner is empty"),
    ],
)
def test_each_fault_is_named_with_its_row(dataset: Dataset, message: str):
    with pytest.raises(ValueError, match=message):
        check_records(dataset)


def test_the_two_text_forms_do_not_mix():
    class Rows(dict):  # a datasets.Dataset cannot hold this; a plain mapping of columns can
        column_names = ("prompt", "completion", "owner")

    mixed = Rows(prompt=["Q?", USER], completion=["A.", ASSISTANT], owner=["a", "b"])
    with pytest.raises(ValueError, match="Row 1: the completion is a message list, unlike the rows before it"):
        check_records(mixed)


def test_split_keeps_order_columns_and_every_row():
    dataset = records(["a", "b", "a", "c", "b"], group=["x", "y", "x", "z", "y"])
    forget, retain = forget_retain_split(dataset, ["c", "a"])
    assert forget["prompt"][:] == ["Q0?", "Q2?", "Q3?"]
    assert retain["prompt"][:] == ["Q1?", "Q4?"]
    assert forget.column_names == retain.column_names == dataset.column_names
    assert forget["group"][:] == ["x", "x", "z"]


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        (["z", "a"], r"owner to forget 'z' is unknown; the owners are 'a', 'b'\."),
        (["a", "a"], r"owner to forget 'a' is named more than once.*the owners are 'a', 'b'\."),
        ([], r"No owner to forget was named; the owners are 'a', 'b'\."),
        (["b", "a"], r"No owner would be retained: leave out at least one of the owners 'a', 'b'\."),
        ("a", r"forget_owners is the string 'a': give a list"),
    ],
)
def test_split_faults_list_the_owners(owners: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        forget_retain_split(records(["a", "b", "a"]), owners)


def test_long_lists_of_owners_are_cut():
    with pytest.raises(ValueError) as error:
        forget_retain_split(records([f"owner_{i:03d}" for i in range(200)]), ["nobody"])
    message = str(error.value)
    assert "'owner_009', ..., 'owner_190'" in message and "'owner_199' (200 in all)" in message
    assert "owner_100" not in message


def test_text_of():
    assert text_of("  a b\n") == "a b"
    assert text_of([{"role": "system", "content": " s"}, {"role": "user", "content": "u "}]) == "s\nu"


def test_folds_share_each_owners_rows():
    owners = ["a", "b", "a", "a", "b", "b", "b"]
    rows = Dataset.from_dict({"prompt": list("0123456"), "completion": list("xxxxxxx"), "owner": owners})
    first, second = take_fold(rows, "0/2"), take_fold(rows, "1/2")
    assert list(first.inside["prompt"]) == ["0", "1", "3", "5"]
    assert list(first.outside["prompt"]) == list(second.inside["prompt"]) == ["2", "4", "6"]


@pytest.mark.parametrize("fold", ["2/2", "0/1", "1", "a/2", "-1/2"])
def test_what_is_no_fold_is_refused(fold):
    with pytest.raises(ValueError, match="give it as '0/2'"):
        take_fold(Dataset.from_dict({"owner": ["a"]}), fold)


def test_a_row_on_both_sides_is_said(caplog):
    rows = {"prompt": ["q", "q", "q", "p"], "completion": ["a", "a", "b", "a"], "owner": ["ann", "bo", "ann", "cy"]}
    split = forget_retain_split(Dataset.from_dict(rows), ["ann"])
    assert (len(split.forget), len(split.retain)) == (2, 2)
    assert caplog.messages == ["1 rows to forget are word for word those of others, and are retained as theirs: 'bo'."]
    caplog.clear()
    forget_retain_split(Dataset.from_dict(rows), ["cy"])
    assert not caplog.messages
