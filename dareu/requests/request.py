"""A request, once it is known that it can be carried out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from dareu.data import encode_dataset
from dareu.data.parts import DataArguments, DataParts, chat_form, forget_names, load_parts, split_owners
from dareu.methods import find_method
from dareu.models import adapter_base, context_length, load_model, load_tokenizer, resolve_model_path
from dareu.requests._judging import Judging, judging
from dareu.requests.ledger import Entry, check_ledger, check_new, earlier_owners, find_ledger, read_ledger
from dareu.requests.sizing import Size, model_config, size_of
from dareu.weights import CheckpointWeights, fingerprint


class Asked(Protocol):
    """What is asked beside the data; the options of `dareu forget` are one such."""

    model_name_or_path: str
    base_model: str | None
    method: str
    weights: str
    density: float
    retrained: str | None
    ledger: str | None
    again: bool
    use_cpu: bool


class Request(NamedTuple):
    """Who is forgotten, of which rows, and what there is to do it with."""

    data: DataArguments
    """With the owners by name, and without the rows of those who were forgotten earlier."""
    everyone: DataArguments
    """With all rows: the judges know those who were forgotten too."""
    owners: list[str]
    earlier: list[str]
    """Who was forgotten by earlier requests."""
    remembered: list[str]
    """Those of them whose rows are in the data."""
    entries: list[Entry]
    """The requests so far."""
    fingerprint: str
    """Of the model's weights."""
    columns: list[str]
    """Of the rows to forget."""
    rows: dict[str, int]
    """How many there are of each split."""
    prompt_tokens: int
    """Of the longest prompt, as the model reads it."""
    completion_tokens: int
    """Of the longest completion, its end token included."""
    judging: Judging
    size: Size
    weaker: list[str]
    """What is weaker than it could be, and for want of what; a sentence each."""


def prepare(data: DataArguments, asked: Asked) -> Request:
    """Looks at data, model, owners and earlier requests, and writes nothing.

    Raises:
        ValueError: No owner is named; data or model cannot be read; an owner has no rows or is forgotten already; the
            ledger is another model's or missing; nobody is left to retain; or a row cannot be encoded or is longer than
            the model reads.
    """
    if not data.forget_owners:
        raise ValueError("forget_owners names nobody: name those who ask to be forgotten.")
    if data.part_column is not None:
        raise ValueError("part_column names a part of the owners' rows: a request is of all of them, so leave it out.")
    for name in (asked.base_model, asked.retrained):
        if name is not None:  # refused here where it is none, and not after hours
            load_tokenizer(name, pad_token=data.pad_token)
    whole = load_parts(data)
    owners = list(dict.fromkeys(forget_names(data, whole.owners)))
    weights = weights_fingerprint(asked.model_name_or_path)
    ledger = find_ledger(resolve_model_path(asked.model_name_or_path), asked.ledger)
    entries = [] if ledger is None else read_ledger(ledger)
    if ledger is not None:
        check_ledger(ledger, entries, weights, resolve_model_path(asked.model_name_or_path))
    if not asked.again:
        check_new(entries, owners)
    earlier = [owner for owner in earlier_owners(entries) if owner not in owners]
    known = set(whole.owners["owner"])
    remembered = [owner for owner in earlier if owner in known]
    if whole.background is not None and (again := set(earlier) & set(whole.background["owner"])):
        raise ValueError(
            f"{min(again)}, forgotten earlier, is one of the num_background_owners, whose rows are retained: count "
            "them anew, or leave those rows out of the data."
        )
    excluded = [*(data.exclude_owners or ()), *remembered]
    if whole.test is not None and (tested := set(owners) & set(whole.test["owner"])):
        raise ValueError(f"{min(tested)} has test rows too, which count as rows of nobody: take them out of those.")
    narrowed = dataclasses.replace(data, forget_owners=owners, exclude_owners=excluded or None)
    parts = load_parts(narrowed) if excluded else whole
    split = split_owners(narrowed, parts.owners)
    tokenizer = load_tokenizer(asked.model_name_or_path, pad_token=data.pad_token)
    limit = context_length(model_config(asked.model_name_or_path))
    records = encode_dataset(chat_form(narrowed, parts.owners, tokenizer), tokenizer, max_length=limit)
    prompt_tokens = max(len(record.prompt_ids) for record in records)
    completion_tokens = max(len(record.completion_ids) for record in records)
    judges = judging(whole.owners, owners)
    method = find_method(asked.method)
    size = size_of(
        asked.model_name_or_path,
        method,
        way=asked.weights,
        density=asked.density,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        num_judges=(asked.base_model is not None) + (method.loss is None),
        use_cpu=asked.use_cpu,
    )
    weaker = [*_weaker(asked, parts, split.forget.column_names, known, earlier), *judges.weaker]
    if not size.fits:
        weaker.append(size.reason)
    rows = {"forget": len(split.forget), "retain": len(split.retain)}
    rows |= {} if parts.test is None else {"test": len(parts.test)}
    everyone = dataclasses.replace(data, forget_owners=None, num_forget=DataArguments.num_forget)
    lengths = prompt_tokens, completion_tokens
    columns = split.forget.column_names
    asking = owners, earlier, remembered, entries, weights
    return Request(narrowed, everyone, *asking, columns, rows, *lengths, judges, size, weaker)


def weights_fingerprint(model: str) -> str:
    """The fingerprint of a model's weights, read a tensor at a time where they stand in a folder.

    Raises:
        ValueError: There is no such model.
    """
    folder = Path(resolve_model_path(model))
    whole = folder.is_dir() and adapter_base(str(folder)) is None
    return fingerprint(CheckpointWeights(folder) if whole else load_model(model))


def _weaker(
    asked: Asked, parts: DataParts, columns: Sequence[str], known: set[str], earlier: Sequence[str]
) -> list[str]:
    found = []
    if asked.base_model is None:
        found.append(
            "No base model is given: groups have no gold completions and no uninformed answers, fluency is judged by "
            "the model itself, and nothing stands in for a model that never saw the owners."
        )
    if parts.test is None:
        found.append("There are no test rows (test_dataset): membership cannot be attacked.")
    if "facts" not in columns:
        found.append("The rows have no facts (a column facts): what an answer gives away is not counted fact by fact.")
    if gone := [owner for owner in earlier if owner not in known]:
        found.append(
            f"The data have no rows of {len(gone)} of those who were forgotten earlier: whether they came back cannot "
            "be told."
        )
    return found
