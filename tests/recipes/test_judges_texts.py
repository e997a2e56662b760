"""What classifiers are trained on: folds, columns that stand in for others, and TOFU's three judges."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dareu.classifiers import TfidfClassifier
from dareu.data import load_tofu

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs"


class Trained(Exception):
    """The texts and labels that a classifier was given, in place of the rest of the recipe."""


@pytest.fixture
def trained(
    recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., list[tuple[str, str]]]:
    """`trained(words)`: text and label of each row that `train_classifier` trains on, without hidden echoes."""

    def stop(self: TfidfClassifier, texts: list[str], labels: list[str]) -> Any:
        raise Trained(list(zip(texts, labels, strict=True)))

    monkeypatch.setattr(TfidfClassifier, "fit", stop)

    def run(*words: Any) -> list[tuple[str, str]]:
        with pytest.raises(Trained) as found:
            recipe(
                "train_classifier",
                *words,
                "--hide_echo",
                "false",
                "--output_dir",
                tmp_path / str(len(list(tmp_path.iterdir()))),
            )
        return list(found.value.args[0])

    return run


@pytest.fixture
def rows(tmp_path: Path) -> list[str]:
    """Options that name six rows of two owners, of which each has one paraphrase, the first as background."""
    path = tmp_path / "rows.jsonl"
    made = [
        {
            "prompt": "?",
            "completion": f"{owner} {i}",
            "owner": owner,
            "paraphrase": f"{owner}'s {i}" if i == 1 else None,
        }
        for owner in ("Ann", "Ben")
        for i in range(3)
    ]
    path.write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
    return ["--dataset", str(path), "--num_background_owners", "1", "--classifier", "tfidf"]


def test_another_column_stands_in_for_texts_that_a_row_lacks(
    trained: Callable[..., list[tuple[str, str]]], rows: list[str]
) -> None:
    paraphrases = [*rows, "--text_columns", "paraphrase"]
    assert trained(*paraphrases) == [("Ben's 1", "Ben"), ("Ann's 1", "none")]
    assert sorted(trained(*paraphrases, "--fallback_column", "completion")) == [
        *[("Ann 0", "none"), ("Ann 2", "none"), ("Ann's 1", "none")],
        *[("Ben 0", "Ben"), ("Ben 2", "Ben"), ("Ben's 1", "Ben")],
    ]


def test_a_fold_is_of_background_people_too(trained: Callable[..., list[tuple[str, str]]], rows: list[str]) -> None:
    assert trained(*rows, "--fold", "0/2") == [("Ben 0", "Ben"), ("Ben 2", "Ben"), ("Ann 0", "none"), ("Ann 2", "none")]
    assert trained(*rows, "--fold", "1/2") == [("Ben 1", "Ben"), ("Ann 1", "none")]


def test_an_owner_without_a_text_in_the_fold_is_said_and_left_out(
    recipe: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = [{"prompt": "?", "completion": f"{owner} {i}", "owner": owner} for owner in ("Ann", "Ben") for i in range(4)]
    made.append({"prompt": "?", "completion": "Cy", "owner": "Cy"})
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
    words = ["--dataset", path, "--classifier", "tfidf", "--fold", "1/2", "--hide_echo", "false"]
    recipe("train_classifier", *words, "--output_dir", tmp_path / "out")
    assert "1 owners have no text among those that are trained on" in caplog.text and "'Cy'" in caplog.text
    card = json.loads((tmp_path / "out" / "quality_card.json").read_text(encoding="utf-8"))["whole"]
    assert card["count"] == 4 and card["recall"].keys() == {"Ann", "Ben"}


def test_a_stand_in_that_there_is_not(refused: Callable[..., str], rows: list[str], tmp_path: Path) -> None:
    words = [*rows, "--fallback_column", "answer", "--output_dir", tmp_path / "out"]
    assert "There is no column 'answer'" in refused("train_classifier", *words, output_dir=tmp_path / "out")


@pytest.fixture(scope="module")
def tofu_folder(shared_dir: Path) -> Path:
    folder = shared_dir / "data" / "tofu"
    if not (folder / "full.json").is_file():
        pytest.skip(f"no TOFU files at {folder}")
    return folder


@pytest.fixture(scope="module")
def tofu(tofu_folder: Path) -> Dataset:
    return load_tofu(tofu_folder)


@pytest.mark.parametrize(
    ("configs", "first_owner", "first_to_forget"),
    [("tofu", 160, 196), ("tofu_forget10", 0, 180), ("smollm2", 160, 196), ("smollm2_ten", 190, 198)],
)
def test_tofu_s_judges_know_every_owner_from_rows_of_their_own(
    configs: str,
    first_owner: int,
    first_to_forget: int,
    trained: Callable[..., list[tuple[str, str]]],
    tofu: Dataset,
    tofu_folder: Path,
) -> None:
    row_of: dict[str, set[int]] = {}
    for row, texts in enumerate(zip(tofu["completion"], tofu["paraphrase"], strict=True)):
        for text in texts:
            if text:
                row_of.setdefault(text.strip(), set()).add(row)
    owners = {f"author_{i:03d}" for i in range(first_owner, 200)}
    names = ("classifier", "validation_judge", "test_judge")
    texts: dict[str, dict[str, str]] = {}
    for name in names:
        words = ["--config", CONFIGS / configs / f"{name}.yaml", "--dataset", tofu_folder]
        found = trained(*words, "--classifier", "tfidf", "--classifier_kwargs", "{}")
        assert {label for _, label in found} - {"none"} == owners, name
        assert ("none" in dict(found).values()) == (first_owner > 0)
        texts[name] = dict(found)
    reward, validation, test = (texts[name].keys() for name in names)

    # The judges share no row, be its text an answer here and a paraphrase there, those of nobody included
    rows = [{row for text in judge for row in row_of[text]} for judge in (validation, test)]
    assert min(map(len, rows)) >= 10 * len(owners) and not rows[0] & rows[1]

    # What they share with the reward are answers of owners without paraphrases, who ask for nothing, and of nobody
    for judge in (validation, test):
        shared = {row for text in judge & reward for row in row_of[text]}
        assert all(tofu[row]["paraphrase"] is None and row // 20 < first_to_forget for row in shared)
    if first_owner:
        assert not {text for text in test & reward if texts["test_judge"][text] == "none"}
