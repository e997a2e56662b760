"""Rows of files as they are written: JSON, CSV, Parquet and plain text, and which files of a folder hold rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.data._columns import decoded, first_line, table_of
from dareu.data._separated import read_csv
from dareu.data.records import quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

logger = logging.getLogger(__name__)

#: Files of a folder that describe its data; hidden ones are left aside as well.
_DESCRIPTIONS = re.compile(
    r"(README|LICENSE|LICENCE|NOTICE|CITATION|CHANGELOG)(\.(md|txt|rst|cff|bib|html))?", re.IGNORECASE
)

#: Words in the names of files and folders that a split goes by, as on the Hugging Face hub.
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def file_kind(path: Path) -> str:
    """The ending that tells how a file is read; what `gzip` adds to a name counts for nothing."""
    return _unzipped(path).suffix.lower()


def bare_name(path: Path) -> str:
    """The path without that ending.

    >>> bare_name(Path("ada/notes.jsonl.gz"))
    'ada/notes'
    """
    return _unzipped(path).with_suffix("").as_posix()


def _unzipped(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def files_of(folder: Path, split: str | None) -> list[Path]:
    """The files of a folder that hold its rows, nested ones too, in the order of their names.

    What the names say means nothing, unless a split is asked for: then the files (or their folders) count that have
    one of its words in their name.

    Raises:
        ValueError: There are files that cannot be read, none at all, or none of the split.
    """
    found = files_below(folder)
    strange = [str(path.relative_to(folder)) for path in found if file_kind(path) not in READERS or not path.is_file()]
    if strange:
        raise ValueError(f"nothing reads {quoted(strange)}, whose rows would be lost: move or convert them")
    if not found:
        raise ValueError("the folder has no file of rows")
    if split is None:
        return found
    words = "|".join(_SPLIT_WORDS.get(split, (re.escape(split),)))
    word = re.compile(rf"(?<![a-z])({words})(?![a-z])", re.IGNORECASE)
    chosen = [path for path in found if word.search(str(path.relative_to(folder)))]
    if not chosen:
        names = [str(path.relative_to(folder)) for path in found]
        raise ValueError(f"no file belongs to the split {split!r} by its name; there are {quoted(names)}")
    return chosen


def files_below(folder: Path) -> list[Path]:
    """All files below a folder in the order of their paths, but those that are hidden or describe it.

    Links are followed; one that leads nowhere is among them.
    """
    return sorted(path for path in _walk(folder) if not _is_aside(path.relative_to(folder)))


def _walk(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    real = os.path.realpath(folder)
    for path in sorted(folder.iterdir()) if real not in above else ():  # a link may lead to a folder above
        if path.is_dir():
            yield from _walk(path, above | {real})
        else:
            yield path


def _is_aside(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or bool(_DESCRIPTIONS.fullmatch(path.name))


def read_files(files: Sequence[Path]) -> Dataset:
    """The rows of files, one file after the other; columns that a file lacks are None in its rows.

    Raises:
        ValueError: A file cannot be read, or a column holds what does not go together.
    """
    import pyarrow as pa
    from datasets import Dataset

    tables = []
    for path in files:
        try:
            tables.append(read_table(path))
        except (ValueError, OSError, EOFError, RecursionError, csv.Error, zlib.error) as error:
            where = "" if len(files) == 1 else f"{path.name}: "
            raise ValueError(f"{where}{first_line(error)}") from error
    if not sum(table.num_rows for table in tables):
        raise ValueError("it holds no rows")
    tables = _agreeing(tables)
    try:
        return Dataset(pa.concat_tables(tables, promote_options="permissive").combine_chunks())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"the files do not go together: {first_line(error)}") from error


def read_table(path: Path) -> pa.Table:
    """The rows of one file of a known ending."""
    content = path.read_bytes()
    return READERS[file_kind(path)](gzip.decompress(content) if path.name.lower().endswith(".gz") else content)


def _read_json(content: bytes) -> pa.Table:
    """Objects one after the other, a list of them, or one object of columns."""
    text, decoder = decoded(content), json.JSONDecoder(object_pairs_hook=_object)
    values, position = [], _after_blanks(text, 0)
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ValueError(f"no JSON in line {error.lineno}: {error.msg}") from error
        values.append(value)
        position = _after_blanks(text, position)
    match values:
        case [list(rows)]:
            values = rows
        case [dict(columns)] if _is_table(columns):
            lengths = {name: len(column) for name, column in columns.items()}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"its columns differ in length: {lengths}")
            return table_of(columns)
    for row, value in enumerate(values):
        if not isinstance(value, dict):
            raise ValueError(f"row {row} is no object but of type {type(value).__name__}")
    names = dict.fromkeys(chain.from_iterable(values))
    if values and not names:
        raise ValueError("its rows have no columns")
    return table_of({name: [row.get(name) for row in values] for name in names})


def _is_table(columns: Mapping[str, Any]) -> bool:
    """Whether an object holds columns, and is no row of chat messages alone."""
    if not all(isinstance(column, list) for column in columns.values()):
        return False
    items = list(chain.from_iterable(columns.values()))
    return not items or any(not isinstance(item, dict) for item in items)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has {next(name for name in names if names.count(name) > 1)!r} twice")
    return made


def _after_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _read_parquet(content: bytes) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Dataset

    try:
        table = pq.read_table(io.BytesIO(content))
        table.validate(full=True)
        for i, field in enumerate(table.schema):
            plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            plain = pa.string() if pa.types.is_large_string(plain) else plain
            table = table.set_column(i, field.name, table.column(i).cast(plain))
        features = Dataset(table).features
    except (pa.ArrowException, NotImplementedError, TypeError) as error:  # the last two: types `datasets` has none for
        raise ValueError(first_line(error)) from error
    for i, (name, feature) in enumerate(features.items()):
        if isinstance(feature, ClassLabel):
            labels = [None if value is None else feature.int2str(value) for value in table.column(i).to_pylist()]
            table = table.set_column(i, name, pa.array(labels, pa.string()))
    return table.replace_schema_metadata(None)


def _read_text(content: bytes) -> pa.Table:
    return table_of({"text": [decoded(content)]})


def _agreeing(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The tables, with columns as text that are text in some and whole numbers in others."""
    import pyarrow as pa

    types: dict[str, list[Any]] = {}
    for field in chain.from_iterable(table.schema for table in tables):
        types.setdefault(field.name, []).append(field.type)
    mixed = {
        name
        for name, found in types.items()
        if any(map(pa.types.is_string, found)) and any(map(pa.types.is_integer, found))
    }
    made = []
    for table in tables:
        for i, field in enumerate(table.schema):
            if field.name in mixed and pa.types.is_integer(field.type):
                table = table.set_column(i, field.name, table.column(i).cast(pa.string()))
        made.append(table)
    return made


#: File endings that are known, and who reads their content.
READERS: Mapping[str, Callable[[bytes], Any]] = {
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiters="\t"),
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
