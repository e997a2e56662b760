"""Files and folders as people write them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from dareu.data import load_corpora, load_records, read_dataset

WHO = [f"{name} Holm" for name in ("Ada", "Bo", "Cy", "Di")]


def lines(owner: str, **more: Any) -> str:
    return json.dumps({"prompt": "q", "completion": "a", "owner": owner} | more)


@pytest.mark.parametrize("name", ["data[12]", "x*", "a?", "{a,b}", "two words", "-x", "Zoë 東京", "#1", "~a", "100%"])
def test_a_path_means_that_path(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for other in ("data1", "xy", "ab", "a", "b"):
        Path(f"{other}.jsonl").write_text(lines("nobody"))
        Path(other).mkdir()
        Path(other, "rows.jsonl").write_text(lines("nobody"))
    Path(f"{name}.jsonl").write_text(lines("Ada"))
    Path(name).mkdir()
    Path(name, f"{name}.jsonl").write_text(lines("Bo"))
    assert load_records(f"{name}.jsonl")["owner"][:] == ["Ada"]
    assert load_records(name)["owner"][:] == ["Bo"]


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "driver.jsonl", "a_dev.jsonl", "test/x.jsonl"),
        ("a/b/c.jsonl", "a/b.jsonl", "full.jsonl", "x_val.jsonl"),
        ("a.csv", "a.tsv", "a.json", "a.parquet"),
        ("a.JSONL", "a.ndjson", "a.jsonl.gz", "a.csv.gz"),
    ],
)
def test_a_folder_is_all_of_its_files(tmp_path: Path, names: tuple[str, ...]):
    for name, owner in zip(names, WHO, strict=True):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        row = {"prompt": "q", "completion": "a", "owner": owner}
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist([row]), path)
            continue
        delimiter = "\t" if ".tsv" in name else ","
        text = "\n".join(map(delimiter.join, (row, row.values()))) if "sv" in name else json.dumps(row)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    for aside in ("README.md", "LICENSE", ".gitattributes"):
        (tmp_path / aside).write_text("no rows")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.jsonl").write_text("{}")
    assert sorted(load_records(tmp_path)["owner"]) == WHO
    (tmp_path / "b").mkdir(exist_ok=True)
    (tmp_path / "b" / "more.xlsx").write_text("")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(ValueError, match=r"nothing reads 'b/more\.xlsx', 'notes\.md', whose rows would be lost"):
        load_records(tmp_path)


def test_data_may_be_called_readme(tmp_path: Path):
    (tmp_path / "readme.jsonl").write_text(lines("Ada"))
    assert load_records(tmp_path)["owner"][:] == ["Ada"]


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def iterdir(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied", f"{folder}/secret")

    (tmp_path / "a.jsonl").write_text(lines("Ada"))
    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(ValueError, match="Permission denied"):
        load_records(tmp_path)


def test_links_are_followed_and_those_that_lead_nowhere_are_named(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jsonl").write_text(lines("Bo"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text(lines("Ada"))
    (data / "link").symlink_to(tmp_path / "elsewhere")
    (data / "round").symlink_to(data)
    assert load_records(data)["owner"][:] == ["Ada", "Bo"]
    (data / "again").symlink_to(tmp_path / "elsewhere")
    assert load_records(data)["owner"][:] == ["Ada", "Bo", "Bo"]
    (data / "lost.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(ValueError, match=r"nothing reads 'lost\.jsonl'"):
        load_records(data)


def test_an_empty_folder_and_a_broken_file_of_a_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="the folder has no file of rows"):
        read_dataset(tmp_path)
    (tmp_path / "a.jsonl").write_text(lines("Ada"))
    (tmp_path / "b.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"b\.jsonl: no JSON in line 1"):
        read_dataset(tmp_path)


def test_a_faulty_row_is_named_by_its_place_in_its_file(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "a.jsonl").write_text("\n".join([lines("Ada")] * 3))
    (tmp_path / "x" / "a.csv").write_text("prompt,completion,owner\nq,a,Bo\nq,,Bo\n")
    with pytest.raises(ValueError, match=r"^Row 1 of 'x/a\.csv': the completion is empty"):
        load_records(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(ValueError, match=r"^Row 1: the completion is empty"):
        load_records(tmp_path)


def test_columns_may_be_empty_at_first(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(lines("Ada", facts=None, perturbed=[]) + "\n" + lines("Ada", year=1))
    (tmp_path / "b.jsonl").write_text(lines("Bo", paraphrase="other words", facts=["x"], perturbed=["y"]))
    rows = load_records(tmp_path)
    assert rows["paraphrase"][:] == [None, None, "other words"]
    assert rows["facts"][:] == [None, None, ["x"]]
    assert rows["perturbed"][:] == [[], None, ["y"]]
    assert rows["year"][:] == [None, 1, None]
    many = [lines("Ada", late=None)] * 40_000 + [lines("Ada", late="text")]
    (tmp_path / "b.jsonl").write_text("\n".join(many))
    assert load_records(tmp_path / "b.jsonl")["late"][-1] == "text"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (",a,b\n0,x,NA\n1,007,1e5\n", [["x", "NA"], ["007", "1e5"]]),
        ("a;b\nx, y;1,5\n", [["x, y", "1,5"]]),
        ("a\tb\nx, y\tz; w\n", [["x, y", "z; w"]]),
        ("\ufeffa,b\nx,y\n", [["x", "y"]]),
        ('a,b\n"x\n\n""y""",z\n\n\n', [['x\n\n"y"', "z"]]),
        ("a,b\r\nx,\r\n", [["x", ""]]),
        ("a,b,\nx,y,\n", [["x", "y"]]),
        ('"a";"b"\n"1;2";"2020-01-01"\n', [["1;2", "2020-01-01"]]),
        ('a, "b"\nQ2, "x, or y"\n"Q3", z\n', [["Q2", "x, or y"], ["Q3", "z"]]),
        ('a,b\nQ2, "x"\nQ3, z\n', [["Q2", "x"], ["Q3", " z"]]),
        ('a,b\nQ2," ""x"""\nQ3, z\n', [["Q2", ' "x"'], ["Q3", " z"]]),
        ("a,b\n" + "x" * 200_000 + ",y\n", [["x" * 200_000, "y"]]),
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, text: str, kept: list[list[str]]):
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "rows.csv").write_bytes(text.encode(encoding))
        rows = read_dataset(tmp_path / "rows.csv")
        assert rows.column_names == ["a", "b"]
        assert [list(row.values()) for row in rows] == kept


def test_a_column_without_a_name_that_is_no_index_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "a.csv").write_text(",a,\n0,x,\n1,y,\n")
    read_dataset(tmp_path / "a.csv")
    assert not caplog.messages
    (tmp_path / "a.csv").write_text("a,,b\nx,hey,y\n")
    assert read_dataset(tmp_path / "a.csv").to_list() == [{"a": "x", "b": "y"}]
    assert "Column 2 of a CSV file has no name" in caplog.text


def test_rows_that_a_quote_may_have_joined_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "a.csv").write_text('a;b\nc;"d\ne;f"\nc;"d\ne;f"\nc; "x"\n')
    assert len(read_dataset(tmp_path / "a.csv")) == 3
    assert [message.split(",")[0] for message in caplog.messages] == ["Lines 2 to 3 (2 such places) are one row"]
    caplog.clear()
    (tmp_path / "a.tsv").write_text('a\tb\nc\t"d\ne\tf"\n')
    assert read_dataset(tmp_path / "a.tsv").to_list() == [{"a": "c", "b": "d\ne\tf"}]
    assert caplog.messages == [
        "Lines 2 to 3 are one row, since a cell begins with a quote: if they are several, double that quote and quote "
        "the cell."
    ]
    caplog.clear()
    (tmp_path / "a.tsv").write_text('a\tb\nc\t"d\ne f"\n')
    assert read_dataset(tmp_path / "a.tsv").to_list() == [{"a": "c", "b": "d\ne f"}]
    assert not caplog.messages


def test_blanks_that_are_left_out_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "a.csv").write_text('a,b\nQ1, "x, or y"\nQ2, z\n')
    assert [row["b"] for row in read_dataset(tmp_path / "a.csv")] == ["x, or y", "z"]
    assert caplog.messages == [
        "Blanks behind the delimiters of a CSV file are left out, since cells are quoted behind some."
    ]


def test_what_the_ending_and_the_mark_say(tmp_path: Path):
    (tmp_path / "a.tsv").write_text("a,b\tc\nx,y\tz\n")
    assert read_dataset(tmp_path / "a.tsv").to_list() == [{"a,b": "x,y", "c": "z"}]
    (tmp_path / "a.txt").write_bytes("über".encode("utf-32"))
    assert read_dataset(tmp_path / "a.txt").to_list() == [{"text": "über"}]
    message = [{"role": "user", "content": "q"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": message, "completion": message}))
    assert read_dataset(tmp_path / "a.jsonl").to_list() == [{"prompt": message, "completion": message}]
    (tmp_path / "a.json").write_text('{"prompt": [], "completion": []}')
    with pytest.raises(ValueError, match="it holds no rows"):
        read_dataset(tmp_path / "a.json")


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": "2020-01-01", "b": "007"}, {"a": "12:30", "b": "1e5"}]',
        '{"a": "2020-01-01", "b": "007"}\r\n\n{"a": "12:30",\n "b": "1e5"}',
        '\ufeff{"a": ["2020-01-01", "12:30"], "b": ["007", "1e5"]}',
    ],
)
def test_strings_of_json_stay_strings(tmp_path: Path, text: str):
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    assert read_dataset(tmp_path / "rows.json").to_dict() == {"a": ["2020-01-01", "12:30"], "b": ["007", "1e5"]}


def test_numbers_among_texts_become_texts(tmp_path: Path):
    (tmp_path / "a.json").write_text('[{"owner": 7, "year": 1}, {"owner": "7b", "year": 2}]')
    (tmp_path / "b.json").write_text('[{"owner": 8, "year": 3}]')
    assert read_dataset(tmp_path).to_dict() == {"owner": ["7", "7b", "8"], "year": [1, 2, 3]}


def test_parquet_of_labels_and_categories(tmp_path: Path):
    labels = Features(
        {"prompt": Value("string"), "completion": Value("large_string"), "owner": ClassLabel(names=["Ada", "Bo"])}
    )
    rows = Dataset.from_dict({"prompt": ["q"], "completion": ["a"], "owner": [1]}, features=labels)
    rows.to_parquet(tmp_path / "a.parquet")
    category = pa.table({"prompt": ["q"], "completion": ["a"], "owner": pa.array(["Cy"]).dictionary_encode()})
    pq.write_table(category, tmp_path / "b.parquet")
    assert load_records(tmp_path)["owner"][:] == ["Bo", "Cy"]
    rows.save_to_disk(tmp_path / "saved")
    assert load_records(tmp_path / "saved")["owner"][:] == ["Bo"]


def test_text_files_belong_to_owners_of_their_paths(tmp_path: Path, tokenizer: Any):
    for name in ("ada/1.txt", "bo/1.txt", "cy.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"The author of {name} won the prize in 1987.")
    assert load_corpora(tmp_path, tokenizer, 4, 64)["owner"][:] == ["ada/1", "bo/1", "cy"]
