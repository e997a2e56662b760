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
#: Signs without a form of their own that say nothing about a name: marks of direction and of bytes, hints for breaks.
_SAY_NOTHING = dict.fromkeys([0xAD, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF])
#: Letters and signs that are taken for others, and marks that are not seen.
_ALIKE: dict[int, str | None] = dict.fromkeys([0x0307, 0x034F, 0x0640, *range(0xFE00, 0xFE10)])
_ALIKE |= dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u02b9\u2032`\u00b4"), "'")
_ALIKE |= {0x06CC: "\u064a", 0x0649: "\u064a", 0x06A9: "\u0643"}
_NOT_SEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")


def owner_name(written: str) -> str:
    r"""The name itself: composed letters (NFC), plain blanks, none of them outside, and no signs without a form.

    >>> owner_name(" Zoe\u0301\u00a0Holm\u200e ") == "Zo\u00e9 Holm"
    True
    """
    name = unicodedata.normalize("NFC", written.translate(_SAY_NOTHING)).translate(_NON_BREAKING)
    return name.strip().strip("\u200b").strip()  # a blank without width may end Khmer or Thai


def _looks(name: str) -> str:
    """What is left of a name without case, width, blanks and what else is not seen."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).translate(_ALIKE)
    kinds = [(sign, unicodedata.category(sign)) for sign in folded]
    return "".join("-" if kind == "Pd" else sign for sign, kind in kinds if kind not in _NOT_SEEN)


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
        alike.setdefault(_looks(name), []).append(name)
    doubtful = [names for names in alike.values() if len(names) > 1]
    if doubtful:
        logger.warning(
            "These owners look alike and are kept apart: %s. If some are one person, give them one name.",
            "; ".join(_ascii(names) for names in doubtful[:20]) + (" …" if len(doubtful) > 20 else ""),
        )
    if all(written == {name} for name, written in spellings.items()):
        return dataset
    names = [owner_name(written) for written in dataset["owner"]]
    return dataset.remove_columns("owner").add_column("owner", names)


def _ascii(names: Iterable[str]) -> str:
    """Names whose differences can be seen."""
    return ", ".join(map(ascii, names))
