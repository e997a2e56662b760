"""A forget request is split as a column says, or refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dareu.data.attributes import rows_with
from dareu.spunge import split_forget

GROUPS = ["music", "science", "music", "art", "science", "music"]


@pytest.fixture
def rows() -> Dataset:
    columns: dict[str, Any] = {"owner": list("abcabc"), "group": GROUPS, "year": [1, 2, 1, 2, 1, 2]}
    columns |= {"same": ["x"] * 6, "list": [["x"]] * 6, "odd": ["a/b", "a_b", "a/b", "..", "a_b", "A_B"]}
    columns |= {"gap": ["x", None, "y", "x", "y", "x"], "blank": ["x", "", "y", "x", "y", "x"]}
    return Dataset.from_dict(columns)


def test_every_value_makes_a_part_with_its_rows_in_order(rows: Dataset) -> None:
    parts = split_forget(rows, "group")
    assert [(part.name, part.folder, part.values) for part in parts] == [
        (n, n, [n]) for n in ("music", "science", "art")
    ]
    assert [list(part.rows["owner"]) for part in parts] == [["a", "c", "c"], ["b", "b"], ["a"]]
    assert parts[0].rows.column_names == rows.column_names


def test_numbers_are_known_by_their_text(rows: Dataset) -> None:
    assert [(part.name, part.values, len(part.rows)) for part in split_forget(rows, "year")] == [
        ("1", ["1"], 3),
        ("2", ["2"], 3),
    ]


def test_a_value_is_one_however_it_is_encoded(rows: Dataset) -> None:
    kinds = ["Zo\u00e9", "Zoe\u0301 ", "Bo"] * 2
    split = rows.select(range(6)).add_column("kind", kinds)
    parts = split_forget(split, "kind")
    assert [(part.name, len(part.rows)) for part in parts] == [("Zo\u00e9", 4), ("Bo", 2)]
    assert len(rows_with(split, "kind", ["Zoe\u0301"])) == 4
    named = split_forget(split, "kind", {"Zoe\u0301": "a", "Bo\u00a0": "b"})
    assert [part.name for part in named] == ["a", "b"]
    with pytest.raises(ValueError, match="names several parts for 'Zo\u00e9'"):
        split_forget(split, "kind", {"Zo\u00e9": "a", "Zoe\u0301": "b", "Bo": "b"})


def test_a_map_joins_values(rows: Dataset) -> None:
    groups = {"music": "sound", "science": "rest", "art": "rest", "film": "rest"}
    parts = split_forget(rows, "group", groups, minimum=3)
    assert [(part.name, part.values) for part in parts] == [("sound", ["music"]), ("rest", ["science", "art"])]
    assert list(parts[1].rows["group"]) == ["science", "art", "science"]


def test_every_part_has_a_folder_of_its_own_that_can_be_made(rows: Dataset, tmp_path: Path) -> None:
    long = "A sentence, as titles are. " * 20
    groups = {"a/b": "a/b", "a_b": "a_b", "A_B": "A_B", "..": ".."}
    parts = split_forget(rows, "odd", groups)
    parts += split_forget(rows, "group", {"music": long, "science": "é" * 300, "art": "-"})
    folders = [part.folder for part in parts]
    assert "a_b" in folders and not any(folder.startswith((".", "-")) for folder in folders)
    assert len({folder.casefold() for folder in folders}) == len(folders)
    for folder in folders:
        (tmp_path / f"before-{folder}.json.tmp").mkdir()
    assert len(list(tmp_path.iterdir())) == len(folders)


@pytest.mark.parametrize(
    ("column", "groups", "minimum", "reason"),
    [
        ("nothing", None, 1, "no column 'nothing'; its columns are .*'group'"),
        ("same", None, 1, "All rows to forget belong to the part 'x' of column 'same'"),
        ("group", {"music": "a", "science": "a", "art": "a"}, 1, "belong to the part 'a' of column 'group'"),
        ("list", None, 1, "Column 'list' holds values of type list"),
        ("gap", None, 1, "Row 1 of those to forget has no value in column 'gap'"),
        ("blank", None, 1, "Row 1 of those to forget has no value in column 'blank'"),
        ("group", {"music": "a", "film": "b"}, 1, "names no part for 'science', 'art': .* it knows 'music', 'film'"),
        (
            "group",
            {"music": "a", "science": "b", "art": "b", "film": "c"},
            1,
            "No row to forget belongs to the part 'c' of column 'group', whose values are 'music', 'science', 'art'",
        ),
        ("group", None, 2, "Part 'art' of column 'group' has 1 rows, and at least 2 are asked for"),
    ],
)
def test_a_split_that_cannot_be(
    column: str, groups: dict[str, str] | None, minimum: int, reason: str, rows: Dataset
) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        split_forget(rows, column, groups, minimum=minimum)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
