"""Texts and columns as they stand in files: what bytes say, and a table of Python's values."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

#: Marks of encodings; that of UTF-32 begins with UTF-16's.
_MARKS = [(codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")]
_MARKS += [(codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")]

#: Python's types, as a message calls them.
_KINDS: dict[type, str] = {bool: "a truth value", int: "a number", float: "a number", str: "a text"}
_KINDS |= {list: "a list", dict: "a mapping"}


def first_line(error: BaseException) -> str:
    """What an error says, up to a line break or its end."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


def decoded(content: bytes) -> str:
    """The text of a file's bytes.

    Raises:
        ValueError: They are not UTF-8 and have no mark of another encoding, or are no text.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8, from byte {error.start} on: save it as UTF-8") from error
    if text and max(text[::2].count("\x00"), text[1::2].count("\x00")) > 0.45 * len(text):
        raise ValueError("every second character is NUL, as in UTF-16 without its mark: save it as UTF-8")
    return text


def table_of(columns: Mapping[str, list[Any]]) -> pa.Table:
    """Columns of Python values, each of one type however late it shows; whole numbers among texts become texts.

    Raises:
        ValueError: A column mixes types, or holds what cannot be kept.
    """
    import pyarrow as pa

    arrays = {}
    for name, values in columns.items():
        if {type(value) for value in values} - {type(None)} == {int, str}:
            values = [str(value) if isinstance(value, int) else value for value in values]
        try:
            arrays[name] = pa.array(values)
        except UnicodeEncodeError as error:
            row = next(i for i, value in enumerate(values) if _is_broken(value))
            raise ValueError(f"row {row} of the column {name!r} holds half a character ({error.reason})") from error
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(f"the column {name!r} {_fault(values, error)}") from error
    return pa.table(arrays)


def _is_broken(value: Any) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in json.dumps(value, ensure_ascii=False))


def _fault(values: list[Any], error: Exception) -> str:
    """Why values make no column."""
    first = {_KINDS[type(value)]: row for row, value in reversed(list(enumerate(values))) if value is not None}
    (kind, row), *others = sorted(first.items(), key=lambda item: item[1])
    if others:
        return f"mixes {kind} (row {row}) with {others[0][0]} (row {others[0][1]}): make them of one kind"
    large = (row for row, value in enumerate(values) if isinstance(value, int) and not -(2**63) <= value < 2**63)
    if isinstance(error, OverflowError) and (row := next(large, -1)) >= 0:
        return f"holds a number of more than 64 bits (row {row}): make its numbers texts"
    return f"cannot be read: {first_line(error)}"
