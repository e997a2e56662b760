"""What a record is, and how a forget request splits the records.

A record dataset is a `datasets.Dataset` in TRL's prompt-completion form with one more column:

* `prompt`, `completion`: strings, or chat message lists (`[{"role": ..., "content": ...}]`);
* `owner`: a string, the person or source whose data the row is.

Further columns (`paraphrase`, `perturbed`, `facts`, `name`, `group`, ...) are optional and are kept.
Rows are counted from 0 in every error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from dareu.data._owners import owner_name

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_MOST_NAMES_SHOWN = 20

#: How a list of chat messages begins where CSV, or json.dumps, made a text of it.
_MESSAGES = re.compile(r"""\s*\[\s*\{\s*(["'])(role|content)\1\s*:""")


class ForgetRetain(NamedTuple):
    """The two sides of a forget request; each keeps the row order of the dataset it came from."""

    forget: Dataset
    retain: Dataset


class DataParts(NamedTuple):
    """Record datasets that play different parts."""

    owners: Dataset
    """Rows of the owners, some of whom ask to be forgotten."""
    background: Dataset | None = None
    """Rows that a base model has read and that are mixed into fine-tuning; nobody asks to forget them."""
    test: Dataset | None = None
    """Rows that no model was trained on."""


class RowError(ValueError):
    """A fault of one row, which is counted from 0."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"Row {row}: {reason}")
        self.row, self.reason = row, reason


def is_chat(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether `value` is a non-empty list of messages with a role and a text content."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
        )
    )


def text_of(value: str | Sequence[dict[str, Any]]) -> str:
    """The plain text of a prompt or completion, without surrounding whitespace.

    Args:
        value: A string, or chat messages, whose contents are joined by newlines.
    """
    if isinstance(value, str):
        return value.strip()
    return "\n".join(str(message["content"]) for message in value).strip()


def check_columns(dataset: Dataset, needed: Iterable[str]) -> None:
    """Raises a `ValueError` that lists the columns there are, where one of `needed` is missing."""
    missing = [name for name in needed if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"The dataset has no column {quoted(missing)}; its columns are {quoted(dataset.column_names)}: "
            "rename yours, or load it with a column_mapping."
        )


def check_filled(dataset: Dataset, names: Iterable[str], what: str) -> None:
    """Raises a `ValueError` that names the first row without a value in one of the columns; `what` is the data."""
    for name in names:
        for row, value in enumerate(dataset[name]):
            if value is None:
                raise ValueError(f"Row {row} of {what} has no {name}: fill it in or drop the row.")


def check_texts(dataset: Dataset) -> None:
    """Checks the `prompt` and `completion` of every row.

    Raises:
        ValueError: A column is missing, a prompt is neither a string nor a message list, a completion is
            neither a non-empty string nor one assistant message with content, or the two forms are mixed.
    """
    check_columns(dataset, ("prompt", "completion"))
    chat: bool | None = None
    for row, (prompt, completion) in enumerate(zip(dataset["prompt"], dataset["completion"], strict=True)):
        _check_row(row, prompt, completion)
        if chat is not None and chat != is_chat(completion):
            raise RowError(
                row,
                f"the completion is {_kind(completion)}, unlike the rows before it: "
                "use strings in all rows, or message lists in all rows.",
            )
        chat = is_chat(completion)


def _check_row(row: int, prompt: object, completion: object) -> None:
    if not isinstance(prompt, str) and not is_chat(prompt):
        raise RowError(
            row,
            f"the prompt is {_kind(prompt)}, but must be a string or a list of messages "
            '{"role", "content"} with text content: convert it.',
        )
    if not isinstance(completion, str) and not is_chat(completion):
        raise RowError(
            row,
            f"the completion is {_kind(completion)}, but must be a string or a list with one "
            'message {"role": "assistant", "content"}: convert it or drop the row.',
        )
    if is_chat(prompt) != is_chat(completion):
        raise RowError(
            row,
            f"the prompt is {_kind(prompt)} and the completion is {_kind(completion)}: "
            "make both strings or both message lists (to_chat converts string records).",
        )
    if is_chat(completion) and [message["role"] for message in completion] != ["assistant"]:
        raise RowError(
            row,
            f"the completion has the roles {quoted(m['role'] for m in completion)}, but must be "
            "one assistant message: move the earlier messages into the prompt.",
        )
    if isinstance(completion, str) and _MESSAGES.match(completion):
        raise RowError(row, "the completion is a text that spells messages: give them as lists, in JSON or Parquet.")
    if not text_of(completion):
        raise RowError(row, "the completion is empty: fill it in or drop the row.")


def check_records(dataset: Dataset) -> None:
    """Checks that `dataset` is a record dataset: texts as in `check_texts`, and a named owner in every row.

    Raises:
        ValueError: See `check_texts`; or an owner is not a string, or is empty.
    """
    check_columns(dataset, ("prompt", "completion", "owner"))
    check_texts(dataset)
    for row, owner in enumerate(dataset["owner"]):
        if not isinstance(owner, str):
            raise RowError(row, f"the owner is {_kind(owner)}, but must be a string: convert it with str().")
        if not owner_name(owner):
            raise RowError(row, "the owner is empty: name one or drop the row.")


def forget_retain_split(dataset: Dataset, forget_owners: Sequence[str]) -> ForgetRetain:
    """Splits records into the rows of the owners to forget and the rows of everybody else.

    Args:
        dataset: A record dataset.
        forget_owners: Owners to forget, each once; how a name's letters and blanks are encoded makes no difference.

    Returns:
        The two sides. A warning says where a row of the one stands in the other, too.

    Raises:
        ValueError: `dataset` is no record dataset, an owner is unknown or named twice, or a side is empty.
    """
    check_records(dataset)
    if isinstance(forget_owners, str):
        raise ValueError(f"forget_owners is the string {forget_owners!r}: give a list of owners.")
    owners = [owner_name(owner) for owner in dataset["owner"]]
    known = list(dict.fromkeys(owners))
    asked = [owner_name(owner) for owner in forget_owners]
    if not asked:
        raise ValueError(f"No owner to forget was named; the owners are {quoted(known)}.")
    twice = [owner for owner in dict.fromkeys(asked) if asked.count(owner) > 1]
    if twice:
        raise ValueError(
            f"The owner to forget {quoted(twice)} is named more than once: name each once; "
            f"the owners are {quoted(known)}."
        )
    unknown = [owner for owner in asked if owner not in set(known)]
    if unknown:
        raise ValueError(f"The owner to forget {quoted(unknown)} is unknown; the owners are {quoted(known)}.")
    if len(asked) == len(known):
        raise ValueError(f"No owner would be retained: leave out at least one of the owners {quoted(known)}.")
    forget = set(asked)
    sides: tuple[list[int], list[int]] = ([], [])
    for row, owner in enumerate(owners):
        sides[owner not in forget].append(row)
    columns = dataset["prompt"], dataset["completion"]
    texts = [(str(prompt), str(completion)) for prompt, completion in zip(*columns, strict=True)]
    whose = {texts[row]: owners[row] for row in sides[1]}
    if shared := {texts[row]: whose[texts[row]] for row in sides[0] if texts[row] in whose}:
        logger.warning(
            "%d rows to forget are word for word those of others, and are retained as theirs: %s.",
            len(shared),
            quoted(dict.fromkeys(shared.values())),
        )
    return ForgetRetain(dataset.select(sides[0]), dataset.select(sides[1]))


def quoted(names: Iterable[object]) -> str:
    """Names for an error message: quoted, comma-separated, long lists cut with their length."""
    shown = [repr(name) for name in names]
    if len(shown) > _MOST_NAMES_SHOWN:
        half = _MOST_NAMES_SHOWN // 2
        shown = [*shown[:half], "...", *shown[-half:], f"({len(shown)} in all)"]
        return ", ".join(shown[:-1]) + " " + shown[-1]
    return ", ".join(shown) or "none"


def _kind(value: object) -> str:
    """What `value` is, in words for an error message."""
    if value is None:
        return "missing (None)"
    if is_chat(value):
        return "a message list"
    return "a string" if isinstance(value, str) else f"of type {type(value).__name__}"


class Fold(NamedTuple):
    """A share of each owner's rows and the rest of them, both in the order of the dataset."""

    inside: Dataset
    outside: Dataset


def take_fold(rows: Dataset, fold: str) -> Fold:
    """The rows of a fold and the others: of '1/3', each owner's second, fifth, eighth … row.

    Args:
        rows: A record dataset.
        fold: `'INDEX/NUMBER'` with 0 ≤ INDEX < NUMBER and NUMBER > 1.

    Raises:
        ValueError: `fold` is none.
    """
    index, _, number = fold.partition("/")
    if not (index.isdigit() and number.isdigit() and int(index) < int(number) and int(number) > 1):
        raise ValueError(f"fold is {fold!r}: give it as '0/2', the first of two parts.")
    seen: dict[str, int] = {}
    sides: tuple[list[int], list[int]] = ([], [])
    for i, owner in enumerate(rows["owner"]):
        position = seen[owner] = seen.get(owner, -1) + 1
        sides[position % int(number) != int(index)].append(i)
    return Fold(rows.select(sides[0]), rows.select(sides[1]))


def thin(rows: Dataset, number: int | None) -> Dataset:
    """At most `number` rows, evenly spread; all of them where it is None."""
    if number is None or len(rows) <= number:
        return rows
    return rows.select([i * len(rows) // number for i in range(number)])
