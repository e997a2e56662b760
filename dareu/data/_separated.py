"""CSV and its kin as people write them: any delimiter, quoted line breaks, an index without a name."""

from __future__ import annotations

import csv
import io
import logging
from typing import TYPE_CHECKING

from dareu.data._columns import decoded, table_of
from dareu.data.records import quoted

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


def read_csv(content: bytes, delimiters: str = ",;\t|") -> pa.Table:
    """Cells as text, never as numbers, dates or missing values; the delimiter is the one that fits."""
    text = decoded(content)
    limit = csv.field_size_limit(max(len(text), 1))
    try:
        return _csv_table(text, delimiters)
    finally:
        csv.field_size_limit(limit)


def _csv_table(text: str, delimiters: str) -> pa.Table:
    widths = {delimiter: _csv_width(text, delimiter) for delimiter in delimiters}
    likely = sorted((d for d in delimiters if widths[d] > 1), key=lambda d: -widths[d]) or [delimiters[0]]
    faults = []
    for delimiter in likely:
        try:
            return _csv_columns(text, delimiter)
        except ValueError as error:
            faults.append(error)
    raise faults[0]


def _csv_width(text: str, delimiter: str) -> int:
    """How many columns the header names; 0 where this is not its delimiter."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return len(next(filter(None, lines), []))
    except csv.Error:
        return 0


def _csv_columns(text: str, delimiter: str) -> pa.Table:
    rows = _without_blanks_before_quotes(text, delimiter)
    _warn_of_joined(text, delimiter)
    header, *rows = rows or [[]]
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        raise ValueError(f"the header has {quoted(sorted(twice))} more than once")
    for i in (i for i, name in enumerate(header) if not name):
        cells = [row[i] for row in rows]
        if any(cells) and cells not in ([str(j) for j in range(k, k + len(rows))] for k in (0, 1)):
            logger.warning("Column %d of a CSV file has no name, and is left out with what it holds.", i + 1)
    return table_of({name: [row[i] for row in rows] for i, name in enumerate(header) if name})


def _without_blanks_before_quotes(text: str, delimiter: str) -> list[list[str]]:
    """The rows, where a cell may be quoted behind blanks, as in `Q1, "A, or B"`."""
    fault, rows, others = None, [], []
    try:
        rows = _csv_rows(text, delimiter, skipinitialspace=False)
    except ValueError as error:
        fault = error
    if fault is None and not any(_is_quoted(cell) for row in rows for cell in row):
        return rows
    try:
        others = _csv_rows(text, delimiter, skipinitialspace=True)
    except ValueError:
        if fault is not None:
            raise fault from None
        return rows
    if list(map(len, rows)) != list(map(len, others)):  # delimiters and line breaks stand within such cells
        logger.warning("Blanks behind the delimiters of a CSV file are left out, since cells are quoted behind some.")
        return others
    return [
        [other if _is_quoted(cell) else cell for cell, other in zip(*pair, strict=True)]
        for pair in zip(rows, others, strict=True)
    ]


def _is_quoted(cell: str) -> bool:
    return cell.startswith(" ") and cell.lstrip(" ").startswith('"')


def _csv_rows(text: str, delimiter: str, *, skipinitialspace: bool) -> list[list[str]]:
    stream = io.StringIO(text, newline="")
    lines = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=skipinitialspace)
    rows: list[list[str]] = []
    try:
        for cells in lines:
            if cells and rows and len(cells) != len(rows[0]):
                raise ValueError(f"line {lines.line_num} has {len(cells)} cells, but the header names {len(rows[0])}")
            if cells:
                rows.append(cells)
    except csv.Error as error:
        raise ValueError(f"no CSV in line {lines.line_num}: {error}") from error
    return rows


def _warn_of_joined(text: str, delimiter: str) -> None:
    """Says where lines that look like rows are one; commas are too usual in texts to tell."""
    if delimiter == "," or '"' not in text:
        return
    written = list(io.StringIO(text, newline=""))
    lines, begin, joined = csv.reader(written, delimiter=delimiter), 0, []
    for cells in lines:
        of_row, first, begin = written[begin : lines.line_num], begin + 1, lines.line_num
        if len(of_row) > 1 and all(line.count(delimiter) == len(cells) - 1 for line in of_row):
            joined.append(f"{first} to {begin}")
    if joined:
        more = f" ({len(joined)} such places)" if len(joined) > 1 else ""
        logger.warning(
            "Lines %s%s are one row, since a cell begins with a quote: if they are several, double that quote and "
            "quote the cell.",
            *(joined[0], more),
        )
