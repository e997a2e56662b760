"""Who an owner's name means, however it is written."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_NON_BREAKING = str.maketrans(dict.fromkeys("\u00a0\u2007\u202f", " "))
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))


def owner_name(written: str) -> str:
    r"""The name itself: composed letters (NFC), plain blanks, none of them outside.

    >>> owner_name(" Zoe\u0301\u00a0Holm ") == "Zo\u00e9 Holm"
    True
    """
    return unicodedata.normalize("NFC", written).translate(_NON_BREAKING).strip()


def named_owners(dataset: Dataset) -> Dataset:
    """The dataset with owners as strings where they are whole numbers, or labels with a name each."""
    from datasets import ClassLabel, Value

    owner: Any = dataset.features["owner"]
    if isinstance(owner, ClassLabel):
        names = [None if label is None else owner.int2str(label) for label in dataset["owner"]]
        return dataset.remove_columns("owner").add_column("owner", names)
    is_number = getattr(owner, "dtype", "").startswith(("int", "uint"))
    return dataset.cast_column("owner", Value("string")) if is_number else dataset


def tidy_owners(dataset: Dataset) -> Dataset:
    """The dataset with every owner under one spelling; says which were joined, and which look alike and were not."""
    spellings: dict[str, set[str]] = {}
    for written in dataset["owner"]:
        spellings.setdefault(owner_name(written), set()).add(written)
    joined = {name: sorted(written) for name, written in spellings.items() if len(written) > 1}
    for name, written in joined.items():
        logger.warning(
            "The owner %r is written in %d ways (%s): they are one person.", name, len(written), _ascii(written)
        )
    alike: dict[str, list[str]] = {}
    for name in spellings:
        alike.setdefault("".join(name.translate(_INVISIBLE).casefold().split()), []).append(name)
    doubtful = [names for names in alike.values() if len(names) > 1]
    if doubtful:
        logger.warning(
            "These owners differ in case or blanks alone and are kept apart: %s. If some are one person, give them one "
            "name.",
            "; ".join(_ascii(names) for names in doubtful[:20]) + (" …" if len(doubtful) > 20 else ""),
        )
    if all(written == {name} for name, written in spellings.items()):
        return dataset
    names = [owner_name(written) for written in dataset["owner"]]
    return dataset.remove_columns("owner").add_column("owner", names)


def _ascii(names: Iterable[str]) -> str:
    """Names whose differences can be seen."""
    return ", ".join(map(ascii, names))
