"""CSV and its kin as people write them: any delimiter, quoted line breaks, an index without a name."""

from __future__ import annotations

import csv
import io
import logging
from itertools import chain
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
    """The rows, without the blanks behind delimiters where a quoted cell stands behind one, as in `Q1, "A, or B"`."""
    try:
        rows = _csv_rows(text, delimiter, skipinitialspace=False)
    except ValueError as error:
        try:
            return _csv_rows(text, delimiter, skipinitialspace=True)
        except ValueError:
            raise error from None
    if not any(cell.lstrip(" ").startswith('"') for row in rows for cell in row):
        return rows
    try:
        others = _csv_rows(text, delimiter, skipinitialspace=True)
    except ValueError:
        return rows
    cells = zip(chain.from_iterable(rows), chain.from_iterable(others), strict=False)
    return others if any(cell.lstrip(" ") != other.lstrip(" ") for cell, other in cells) else rows


def _csv_rows(text: str, delimiter: str, *, skipinitialspace: bool) -> list[list[str]]:
    written = list(io.StringIO(text, newline=""))
    lines = csv.reader(written, delimiter=delimiter, strict=True, skipinitialspace=skipinitialspace)
    rows: list[list[str]] = []
    begin = 0
    try:
        for cells in lines:
            if cells and rows and len(cells) != len(rows[0]):
                raise ValueError(f"line {lines.line_num} has {len(cells)} cells, but the header names {len(rows[0])}")
            if cells:
                rows.append(cells)
            several = written[begin : lines.line_num] if lines.line_num > begin + 1 and delimiter == "\t" else []
            if several and all(line.count(delimiter) == len(cells) - 1 for line in several):
                logger.warning(
                    "Lines %d to %d are one row, since a cell begins with a quote: if they are several, double that "
                    "quote and quote the cell.",
                    *(begin + 1, lines.line_num),
                )
            begin = lines.line_num
    except csv.Error as error:
        raise ValueError(f"no CSV in line {lines.line_num}: {error}") from error
    return rows
