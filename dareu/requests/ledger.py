"""The ledger of a model's requests, so that whoever was forgotten once stays so."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dareu.files import atomic_file, to_plain
from dareu.models import adapter_base

#: The ledger beside a model's folder, and what says in that folder that there is one. The latter goes where the model
#: goes, and names nobody.
LEDGER, MARK = "requests.jsonl", "dareu_requests.json"


class Entry(NamedTuple):
    """One request that was carried out: a line of the ledger."""

    owners: list[str]
    date: str
    """When the model was ready, ISO 8601 in UTC."""
    method: str
    settings: dict[str, Any]
    """Of the training."""
    fingerprint_before: str
    """Of the model's weights; see `dareu.weights.fingerprint`."""
    fingerprint_after: str
    metrics: dict[str, float]
    """What was measured of the model afterwards."""
    by_owner: dict[str, dict[str, float]]
    """The same of the rows of each owner, earlier ones among them."""


def find_ledger(model: str, given: str | None) -> Path | None:
    """The ledger of a model; None where it has never been unlearned.

    Args:
        model: Its folder or hub id.
        given: The file that is named for it.

    Raises:
        ValueError: There is none of that name, or none at all though the model was unlearned before.
    """
    folder = Path(model)
    beside = folder.parent / LEDGER
    if given is not None:
        if not Path(given).is_file():
            raise ValueError(f"ledger is {given}, which is no file: name the {LEDGER} of the model's last request.")
        return Path(given)
    if folder.is_dir() and beside.is_file():
        return beside
    if _is_marked(model):
        raise ValueError(
            f"{model} was made by an earlier request, and there is no {LEDGER} beside it that says whose: name it as "
            "ledger, or the owners that were forgotten would be retained."
        )
    return None


def _is_marked(model: str) -> bool:
    """Whether a model, or the base of an adapter, says that an earlier request made it."""
    from transformers.utils.hub import cached_file

    names = [model]
    while (base := adapter_base(names[-1])) is not None:
        names.append(base)
    quiet = {f"_raise_exceptions_for_{of}": False for of in ("gated_repo", "missing_entries", "connection_errors")}
    return any(
        (Path(name) / MARK).is_file() if Path(name).is_dir() else cached_file(name, MARK, **quiet) is not None
        for name in names
    )


def read_ledger(path: str | os.PathLike[str]) -> list[Entry]:
    """The requests so far, the first first.

    Raises:
        ValueError: A line is no request.
    """
    entries = []
    lines = Path(path).read_text(encoding="utf-8").split("\n")  # other breaks may stand in names
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        try:
            found = json.loads(line)
            entries.append(Entry(**{name: found[name] for name in Entry._fields}))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"Line {number} of {path} is no request ({error}): take the file as written.") from None
    return entries


def check_ledger(path: Path, entries: Sequence[Entry], fingerprint: str, model: str) -> None:
    """Looks whether a ledger is that of a model, and whole.

    Args:
        path: The ledger's.
        entries: What it holds.
        fingerprint: Of the model's weights.
        model: Its folder or hub id.

    Raises:
        ValueError: It holds no request, or lacks some, or the last one left another model.
    """
    marked = Path(model) / MARK
    said = json.loads(marked.read_text(encoding="utf-8")) if marked.is_file() else mark_of(entries)
    followed = all(one.fingerprint_after == next_.fingerprint_before for one, next_ in pairwise(entries))
    if not entries or not followed or said != mark_of(entries):
        raise ValueError(f"{path} lacks requests that were made of the model: take the file as it was written.")
    if entries[-1].fingerprint_after != fingerprint:
        raise ValueError(
            f"{path} does not belong to the model: its last request left weights with the fingerprint "
            f"{entries[-1].fingerprint_after}, and these have {fingerprint}."
        )


def check_new(entries: Sequence[Entry], owners: Sequence[str]) -> None:
    """Raises `ValueError` where an owner was forgotten by an earlier request."""
    for number, entry in enumerate(entries, start=1):
        if again := [owner for owner in owners if owner in entry.owners]:
            raise ValueError(
                f"{', '.join(again)} was forgotten by request {number}: leave that name out, or give --again where it "
                "has to be forgotten anew."
            )


def earlier_owners(entries: Sequence[Entry]) -> list[str]:
    """Everybody who was forgotten before, in the order of their requests."""
    return list(dict.fromkeys(owner for entry in entries for owner in entry.owners))


def write_ledger(path: Path, entries: Sequence[Entry]) -> None:
    """Writes all requests, one a line, whole or not at all."""
    with atomic_file(path) as temporary:
        lines = [json.dumps(to_plain(entry._asdict()), ensure_ascii=False) for entry in entries]
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def mark_of(entries: Sequence[Entry]) -> Mapping[str, Any]:
    """What the model's own folder says of its requests: how many, and nobody's name."""
    return {"requests": len(entries), "owners": len(earlier_owners(entries))}
