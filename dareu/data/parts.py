"""The parts of the data that every recipe names in the same way: owners, background and test rows."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.data._arguments import DataArguments
from dareu.data._choices import choice_rows
from dareu.data._lume import lume_rows
from dareu.data._muse import muse_parts
from dareu.data._owners import owner_name, tidy_owners
from dareu.data._rwku import rwku_rows
from dareu.data.attributes import rows_with
from dareu.data.corpora import text_rows
from dareu.data.encoding import to_chat
from dareu.data.fictional import background_rows, fictional_parts
from dareu.data.loaders import record_rows
from dareu.data.records import DataParts, ForgetRetain, check_records, forget_retain_split, quoted
from dareu.data.tofu import is_tofu, tofu_parts
from dareu.plugins import build, needed_parameters, resolve
from dareu.values import as_mapping

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

__all__ = [
    "DATASETS",
    "OFFERED",
    "DataArguments",
    "DataParts",
    "chat_form",
    "forget_names",
    "load_parts",
    "split_owners",
]

#: Loaders by name, an open dict. A loader returns `DataParts`, or the rows of the owners alone. Its parameters without
#: defaults are names of `OFFERED`, or `source`: the path or hub id that is given as the dataset.
DATASETS: dict[str, Callable[..., DataParts | Dataset]] = {
    "choices": choice_rows,
    "fictional": fictional_parts,
    "fictional-background": background_rows,
    "lume": lume_rows,
    "muse": muse_parts,
    "records": record_rows,
    "rwku": rwku_rows,
    "texts": text_rows,
    "tofu": tofu_parts,
}

#: The options of `DataArguments` that a loader may ask for.
OFFERED = (
    *("num_owners", "world_seed", "column_mapping", "prompt_template", "completion_template"),
    *("prompt_tokens", "completion_tokens", "text_tokenizer"),
)


def load_parts(args: DataArguments) -> DataParts:
    """Loads the parts that the arguments name.

    A warning says where test rows are an owner's, word for word.

    Raises:
        ValueError: There is no such loader, an option is set that it does not take, the data cannot be read or is not
            made of records, or too few owners are left beside the background people.
    """
    name = _loader_name(args)
    label = args.dataset if name == args.dataset else f"{args.dataset}, which is read as {name}"
    try:
        parts = _load(name, label, args)
    except ValueError as error:
        near = difflib.get_close_matches(args.dataset, DATASETS, n=1)
        if name == args.dataset or not near or Path(args.dataset).exists():
            raise
        raise ValueError(f"{str(error).removesuffix('.')}, unless {near[0]!r} is meant.") from error
    if args.test_dataset is not None:
        reader = DATASETS["records" if args.prompt_tokens is None else "texts"]
        offered = {**_offered(args), "source": lambda: args.test_dataset}
        parts = parts._replace(test=build(reader, offered, {}, "The test dataset"))
    if parts.test is not None:
        _warn_of_owners_rows(parts.test, parts.owners)
    if parts.background is None:
        parts = _with_background(parts, args)
    elif args.num_background_owners:
        raise ValueError(f"num_background_owners has no effect on {label}, which has background rows: drop it.")
    return parts._replace(owners=_without_owners(parts.owners, args)) if args.exclude_owners else parts


def forget_names(args: DataArguments, owners: Dataset) -> list[str]:
    """The owners to forget: those named, or the last `num_forget` in the order of the rows."""
    if args.forget_owners is not None:
        return [owner_name(owner) for owner in args.forget_owners]
    names = list(dict.fromkeys(owners["owner"]))
    if not 1 <= args.num_forget < len(names):
        raise ValueError(f"num_forget is {args.num_forget}, but there are {len(names)} owners: forget some of them.")
    return names[-args.num_forget :]


def split_owners(args: DataArguments, owners: Dataset) -> ForgetRetain:
    """`forget_retain_split` by the owners that the arguments name; of the forget side, the part that they name.

    Raises:
        ValueError: As `forget_retain_split` says, or no row to forget has a value of the part.
    """
    split = forget_retain_split(owners, forget_names(args, owners))
    if args.part_column is None or args.part_values is None:
        return split
    return split._replace(forget=rows_with(split.forget, args.part_column, args.part_values))


def chat_form(args: DataArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """The rows as a model reads them: messages where its tokenizer has a chat template, plain texts as they are."""
    return to_chat(rows) if tokenizer.chat_template and args.prompt_tokens is None else rows


def generated() -> list[str]:
    """The names in `DATASETS` of loaders that read no source; any other name gives way to a path of that name."""
    return [name for name, loader in DATASETS.items() if "source" not in inspect.signature(loader).parameters]


def _loader_name(args: DataArguments) -> str:
    """The name of a loader in `DATASETS` or of a plug-in; where the dataset is no name, of what reads it."""
    is_name = args.dataset in DATASETS or ":" in args.dataset
    if args.dataset in generated() or (is_name and not Path(args.dataset).exists()):
        return args.dataset
    if is_tofu(args.dataset):
        return "tofu"
    return "records" if args.prompt_tokens is None else "texts"


def _warn_of_owners_rows(test: Dataset, owners: Dataset) -> None:
    """Whoever counts on test rows takes them for unseen: an attack by which known rows stand out would find nothing."""

    def texts(rows: Dataset) -> Iterator[tuple[str, str]]:
        return zip(map(str, rows["prompt"]), map(str, rows["completion"]), strict=True)

    whose = dict(zip(texts(owners), owners["owner"], strict=True))
    found = [whose[row] for row in texts(test) if row in whose]
    if found:
        logger.warning(
            "%d of %d test rows are word for word those of owners (%s), though they should be new to every model: "
            "leave them out of the test rows.",
            len(found),
            len(test),
            quoted(dict.fromkeys(found)),
        )


def _offered(args: DataArguments) -> dict[str, Callable[[], Any]]:
    return {option: partial(getattr, args, option) for option in OFFERED}


def _load(name: str, label: str, args: DataArguments) -> DataParts:
    """What the loader of a name makes of the options, checked where it is none of `DATASETS`."""
    loader, what, is_name = resolve(name, DATASETS), f"The dataset {name!r}", name == args.dataset
    kwargs, offered = as_mapping("dataset_kwargs", args.dataset_kwargs), _offered(args)

    def source() -> str:
        if is_name:
            raise ValueError(f"{what} reads a source: name its path or hub id as source among the dataset_kwargs.")
        return args.dataset

    if "source" not in kwargs:
        offered["source"] = source
    elif not is_name:
        raise ValueError(f"dataset_kwargs names a source, and {args.dataset} is one: give it once.")
    needs, usual = needed_parameters(loader, offered, kwargs, what), DataArguments()
    for option in OFFERED:
        if option not in needs and getattr(args, option) != getattr(usual, option):
            raise ValueError(f"{option} has no effect on {label}: drop it.")
    parts = _as_parts(loader(**{need: offered[need]() for need in needs}, **kwargs), what)
    if name in DATASETS:
        return parts
    _check_parts(parts, what)
    return DataParts(*(None if rows is None else tidy_owners(rows) for rows in parts))


def _as_parts(found: Any, what: str) -> DataParts:
    """What a loader returned, the rows of owners alone as parts."""
    from datasets import Dataset

    parts = DataParts(found) if isinstance(found, Dataset) else found
    kind = type(found).__name__
    if isinstance(parts, DataParts):
        needed = [rows for part, rows in parts._asdict().items() if rows is not None or part == "owners"]
        kinds = [type(rows).__name__ for rows in needed if not isinstance(rows, Dataset)]
        if not kinds:
            return parts
        kind = f"DataParts with {kinds[0]}"
    raise ValueError(f"{what} returns {kind}: return a datasets.Dataset of the owners' rows, or DataParts of such.")


def _check_parts(parts: DataParts, what: str) -> None:
    for part, rows in parts._asdict().items():
        if rows is not None:
            try:
                check_records(rows)
            except ValueError as error:
                raise ValueError(f"{what} returns no records as its {part}: {error}") from error


def _without_owners(rows: Dataset, args: DataArguments) -> Dataset:
    """The rows but those of `exclude_owners`."""
    excluded = {owner_name(owner) for owner in args.exclude_owners or ()}
    if unknown := sorted(excluded - set(rows["owner"])):
        raise ValueError(f"exclude_owners names {', '.join(unknown)}, who own no rows of {args.dataset}.")
    kept = rows.select([i for i, owner in enumerate(rows["owner"]) if owner not in excluded])
    if not len(kept):
        raise ValueError("exclude_owners names every owner: leave some.")
    return kept


def _with_background(parts: DataParts, args: DataArguments) -> DataParts:
    """The parts with the first owners as background people."""
    rows = parts.owners
    names = list(dict.fromkeys(rows["owner"]))
    background_names = set(names[: args.num_background_owners])
    if len(background_names) == len(names):
        raise ValueError(
            f"num_background_owners is {args.num_background_owners}, but {args.dataset} has {len(names)} owners: "
            "leave some to be owners."
        )
    if not background_names:
        return parts
    in_background = [owner in background_names for owner in rows["owner"]]
    background = rows.select([i for i, inside in enumerate(in_background) if inside])
    owners = rows.select([i for i, inside in enumerate(in_background) if not inside])
    return parts._replace(owners=owners, background=background)
