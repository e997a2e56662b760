"""What judges of a request read: nothing that the reward's classifier reads, as far as the rows allow."""

from typing import Any

import pytest
from datasets import Dataset

from dareu.data import take_fold
from dareu.requests._judging import backbone_options, judging


def rows(number: int, **columns: str | None) -> Dataset:
    """So many rows of Ann and twelve of Bo, each text its own."""
    people = ["Ann"] * number + ["Bo"] * 12
    made = [
        {"prompt": f"q{i}", "completion": f"c{i}", "owner": owner}
        | {name: text if text is None else f"{text}{i}" for name, text in columns.items()}
        for i, owner in enumerate(people)
    ]
    return Dataset.from_list(made)


def texts(data: Dataset, options: dict[str, Any]) -> set[str]:
    """What is read by these options."""
    if fold := options.get("fold"):
        data = take_fold(data, fold).inside
    return {text for column in options.get("text_columns", ["completion"]) for text in data[column]}


@pytest.mark.parametrize(
    ("number", "columns", "weaker"),
    [
        (1, {"paraphrase": "p", "restatement": "r"}, ""),
        (2, {"paraphrase": "p"}, ""),
        (4, {}, "The rows have no answers in other words"),
        (12, {"paraphrase": None}, "The rows have no answers in other words"),
    ],
)
def test_no_two_of_them_share_a_text(number: int, columns: dict[str, str | None], weaker: str) -> None:
    data = rows(number, **columns)
    found = judging(data, ["Ann"])
    read = {role: texts(data, options) for role, options in found.options.items()}
    assert set(read) == {"classifier", "validation_judge", "test_judge"} and all(read.values())
    for role, of in read.items():
        assert not of & set().union(*(other for name, other in read.items() if name != role))
        assert any(text[1:] in {str(i) for i in range(number)} for text in of), f"{role} knows nothing of Ann"
    assert len(found.weaker) == bool(weaker) and all(sentence.startswith(weaker) for sentence in found.weaker)
    families = [(of["classifier"], str(of.get("classifier_kwargs"))) for of in found.options.values()]
    assert len(set(families)) == 3


@pytest.mark.parametrize(("number", "columns"), [(3, {}), (1, {"paraphrase": "p"})])
def test_with_too_few_rows_they_share_and_it_is_said(number: int, columns: dict[str, str | None]) -> None:
    found = judging(rows(number, **columns), ["Ann", "Bo"])
    assert all("fold" not in options and "text_columns" not in options for options in found.options.values())
    (sentence,) = found.weaker
    assert sentence.startswith(f"An owner to forget has {number} row") and "may be deceived as it is" in sentence


def test_a_small_backbone_is_trained_whole() -> None:
    assert backbone_options("m", 1_000_000)["lora"] is False
    assert "lora" not in backbone_options("m", 1_000_000_000)
