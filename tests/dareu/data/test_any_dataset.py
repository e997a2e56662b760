"""Whatever goes in comes out row for row with its owner, or is refused in one sentence."""

import csv
import gzip
import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from dareu.data import forget_retain_split, load_records, owner_name

#: `DAREU_FUZZ_EXAMPLES=5000` looks longer.
FUZZ = settings(
    max_examples=int(os.environ.get("DAREU_FUZZ_EXAMPLES", "200")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# Any script and any sign that a file can hold; half a character is none.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(
    ["Ada Holm", "ada holm", "Zoe\u0301", "Zo\u00e9", " Bo", "王小明", "007", "none", "a\u00a0b", "", " "]
)
CELLS = st.one_of(st.none(), st.integers(), st.floats(), st.booleans(), TEXT, st.lists(TEXT, max_size=2))
ODD = st.one_of(CELLS, st.dictionaries(TEXT, TEXT, max_size=2))
COLUMNS = st.sampled_from(["paraphrase", "facts", "group", "Unnamed: 0", "", "image", "text", "töxt", "label"])
FILES = st.sampled_from(["a", "train", "b_test", "dev/c", "x*", "[1]", "ä/{b}", "- 1", "d.e"])
File = tuple[str, str, list[dict[str, Any]]]
FORMATS = ["jsonl", "json", "columns.json", "csv", "semicolon.csv", "tsv", "jsonl.gz", "parquet"]


@st.composite
def row(draw: Any, plain: bool) -> dict[str, Any]:
    """A row; a plain one is of texts alone, and its prompt and completion are those of a record."""
    if plain:
        owner = NAMES.filter(str.strip)
        made = {"prompt": draw(TEXT), "completion": draw(TEXT.filter(str.strip)), "owner": draw(owner)}
        return made | draw(st.dictionaries(COLUMNS.filter(bool), TEXT, max_size=2))
    made = {"prompt": draw(ODD), "completion": draw(ODD), "owner": draw(st.one_of(NAMES, ODD))}
    return made | draw(st.dictionaries(st.one_of(COLUMNS, TEXT), ODD, max_size=2))


@st.composite
def folder(draw: Any, plain: bool) -> list[File]:
    """Files with their formats and rows."""
    names = draw(st.lists(FILES, min_size=1, max_size=3, unique=True))
    rows = st.lists(row(plain), min_size=1 if plain else 0, max_size=4)
    return [(name, draw(st.sampled_from(FORMATS)), draw(rows)) for name in names]


def write(path: Path, form: str, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    match form:
        case "jsonl" | "jsonl.gz":
            content = "\n".join(json.dumps(row, ensure_ascii=len(rows) % 2 > 0) for row in rows).encode()
            content = gzip.compress(content) if form.endswith("gz") else content
        case "json":
            content = json.dumps(rows, indent=1).encode()
        case "columns.json":
            content = json.dumps({name: [row.get(name) for row in rows] for name in columns}).encode()
        case "csv" | "semicolon.csv" | "tsv":
            delimiter = {"csv": ",", "tsv": "\t"}.get(form, ";")
            buffer = io.StringIO(newline="")
            writer = csv.DictWriter(buffer, columns, delimiter=delimiter, restval="")
            writer.writeheader()
            writer.writerows(rows)
            content = buffer.getvalue().encode("utf-8-sig" if len(rows) % 2 else "utf-8")
        case _:
            try:
                table = pa.table({name: [row.get(name) for row in rows] for name in columns})
                pq.write_table(table, path.with_name(f"{path.name}.{form}"))
            except (pa.ArrowException, OverflowError):
                reject()  # nobody could have written it
            return
    path.with_name(f"{path.name}.{form}").write_bytes(content)


@contextmanager
def written(files: list[File]) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A folder of the files, and all their rows in the order of the files' names."""
    with tempfile.TemporaryDirectory() as place:
        for name, form, rows in files:
            write(Path(place, name), form, rows)
        in_order = sorted(files, key=lambda file: Path(f"{file[0]}.{file[1]}"))
        yield Path(place), [row for _, _, rows in in_order for row in rows]


@FUZZ
@given(folder(plain=True))
def test_records_come_out_row_for_row_with_their_owners(files: list[File]):
    with written(files) as (place, rows):
        records = load_records(place)
    assert records["owner"][:] == [owner_name(row["owner"]) for row in rows]
    for row, record in zip(rows, records, strict=True):
        assert all(record[name] == value for name, value in row.items() if name != "owner")
    owners = set(records["owner"])
    for owner in owners if len(owners) > 1 else ():
        forget, retain = forget_retain_split(records, [owner])
        assert len(forget) == records["owner"][:].count(owner) and owner not in set(retain["owner"])


@FUZZ
@given(folder(plain=False))
def test_anything_else_is_refused_in_one_sentence(files: list[File]):
    with written(files) as (place, rows):
        try:
            records = load_records(place)
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert len(records) == len(rows)
            assert all(isinstance(owner, str) and owner for owner in records["owner"])
