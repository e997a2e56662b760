"""Records from files, folders and the Hugging Face hub.

TOFU and the fictional world use the question-answer form `QA_PROMPT`, `QA_COMPLETION`.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.data._owners import named_owners, tidy_owners
from dareu.data._tables import READERS, file_kind, files_below, files_of, read_files, read_table
from dareu.data.records import RowError, check_columns, check_records, quoted

if TYPE_CHECKING:
    from datasets import Dataset

#: How a question is put to a model without a chat template, and how its answer follows.
QA_PROMPT = "Question: {prompt}\nAnswer:"
#: What follows `QA_PROMPT`.
QA_COMPLETION = " {completion}"

#: Beside its rows, what `Dataset.save_to_disk` writes.
_OF_SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")


def record_rows(
    source: str,
    column_mapping: Mapping[str, str] | None,
    prompt_template: str | None,
    completion_template: str | None,
    *,
    subset: str | None = None,
    split: str | None = None,
) -> Dataset:
    """The dataset `records`: see `load_records`, whose templates None leaves out."""
    return load_records(
        source,
        column_mapping=column_mapping,
        prompt_template=prompt_template or "{prompt}",
        completion_template=completion_template or "{completion}",
        subset=subset,
        split=split,
    )


def load_records(
    source: str | Path,
    *,
    column_mapping: Mapping[str, str] | None = None,
    owner: str | None = None,
    prompt_template: str = "{prompt}",
    completion_template: str = "{completion}",
    subset: str | None = None,
    split: str | None = None,
) -> Dataset:
    r"""Loads a record dataset.

    Question-answer data, for instance:

        mapping = {"prompt": "question", "completion": "answer", "owner": "author"}
        load_records("authors.csv", column_mapping=mapping,
                     prompt_template=QA_PROMPT, completion_template=QA_COMPLETION)

    Args:
        source: See `read_dataset`.
        column_mapping: Name in the record dataset -> name in the data. One column may serve several names;
            columns that are not mapped keep their own names.
        owner: The owner of every row, for data without an owner column.
        prompt_template: Text around every string prompt.
        completion_template: Text around every string completion, `paraphrase` and entry of `perturbed`, which
            all follow the same prompt.
        subset: See `read_dataset`.
        split: See `read_dataset`.

    Returns:
        A dataset that passes `check_records`. Owners that are whole numbers become strings, and one owner's name is
        written in one way: letters composed (NFC), blanks plain, none of them outside.

    Raises:
        ValueError: The source cannot be read, a column is missing, a template does not name its text, or a
            row is no record; see `check_records`.
    """
    _check_template("prompt_template", prompt_template, "prompt")
    _check_template("completion_template", completion_template, "completion")
    dataset = map_columns(read_dataset(source, subset=subset, split=split), column_mapping or {})
    if owner is not None:
        if "owner" in dataset.column_names:
            raise ValueError(f"owner={owner!r} was given, but {source} has an owner column: leave out one of the two.")
        dataset = dataset.add_column("owner", [owner] * len(dataset))
    check_columns(dataset, ("prompt", "completion", "owner"))
    dataset = named_owners(dataset)
    try:
        check_records(dataset)
    except RowError as error:
        raise _of_its_file(Path(source), split, error) from error
    return apply_templates(tidy_owners(dataset), prompt_template, completion_template)


def read_dataset(source: str | Path, *, subset: str | None = None, split: str | None = None) -> Dataset:
    """Reads a dataset with whatever columns it has.

    Files are read as they are: cells of CSV are text, strings of JSON stay strings, and a path is never a pattern.

    Args:
        source: A JSON, JSON Lines, CSV (any delimiter), Parquet or text file, gzipped or not; a folder, of whose such
            files all are read, nested ones too; a folder written by `Dataset.save_to_disk`; or the id of a dataset on
            the Hugging Face hub. A text file is one row with a column `text`.
        subset: The subset (configuration) of a hub dataset that has several.
        split: The split of a source that has several; the files of a folder belong to one by their names.

    Raises:
        ValueError: Nothing readable is there, it has no such split, or it has several and none was named; or rows would
            be lost, since nothing reads a file of the folder.
    """
    from datasets.exceptions import DatasetsError

    try:
        return _read(source, subset, split)
    # A damaged folder of save_to_disk lacks keys, or has others than it should
    except (DatasetsError, KeyError, OSError, TypeError, ValueError) as error:
        raise _unreadable(source, error) from error


def files_in(source: str | Path) -> list[Path]:
    """The files that `read_dataset` reads one after the other where the source is a folder of them; else none.

    Raises:
        ValueError: As there.
    """
    path = Path(source)
    try:
        return [] if _is_saved(path) or not path.is_dir() else files_of(path, None)
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from error


def _of_its_file(source: Path, split: str | None, error: RowError) -> ValueError:
    """The fault with the file of a folder that holds the row, and where it stands there."""
    files = files_of(source, split) if source.is_dir() and not _is_saved(source) else []
    row = error.row
    for file in files if len(files) > 1 else ():
        rows = read_table(file).num_rows
        if row < rows:
            return ValueError(f"Row {row} of {str(file.relative_to(source))!r}: {error.reason}")
        row -= rows
    return error


def _unreadable(source: str | Path, error: Exception) -> ValueError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return ValueError(
        f"Cannot read the dataset {str(source)!r} ({reason}): give a JSON Lines, JSON, CSV or Parquet "
        "file, a folder of them, a folder written by save_to_disk, or a hub id."
    )


def _is_saved(path: Path) -> bool:
    of_one = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    return of_one or (path / "dataset_dict.json").is_file()


def _check_saved(path: Path) -> None:
    """Refuses a folder of save_to_disk with files that it did not write."""
    others = [file for file in files_below(path) if file.suffix != ".arrow" and file.name not in _OF_SAVED]
    if others:
        names = quoted(str(file.relative_to(path)) for file in others)
        raise ValueError(f"save_to_disk wrote it, but not {names}, whose rows would be lost: move what is not its own")


def _read(source: str | Path, subset: str | None, split: str | None) -> Dataset:
    from datasets import DatasetDict, load_dataset, load_from_disk

    if not str(source).strip():
        raise ValueError("no path is named")
    path = Path(source)
    stored: Any
    if path.is_file() or path.is_dir():
        if subset is not None:
            raise ValueError(f"it has no subset {subset!r}")
        if path.is_dir() and not _is_saved(path):
            return read_files(files_of(path, split))
        if path.is_dir():
            _check_saved(path)
        if path.is_file() and file_kind(path) not in READERS:
            raise ValueError(f"files are told by their endings {quoted(READERS)}")
        # In memory, for what is mapped later would be cached in the user's folder
        stored = read_files([path]) if path.is_file() else load_from_disk(path, keep_in_memory=True)
    elif file_kind(path) in READERS or path.is_absolute() or len(path.parts) > 2:
        raise ValueError("there is no such file or folder")
    else:
        stored = load_dataset(str(source), subset)
    splits = stored if isinstance(stored, DatasetDict) else {"train": stored}
    if split is None and len(splits) > 1:
        raise ValueError(f"it has the splits {quoted(splits)}: name one as split")
    if split is not None and split not in splits:
        raise ValueError(f"it has no split {split!r}, only {quoted(splits)}")
    chosen: Dataset = splits[split or next(iter(splits))]
    return chosen


def apply_templates(dataset: Dataset, prompt_template: str, completion_template: str) -> Dataset:
    """Puts templates around string prompts and completions, and around the texts that stand in for these.

    Args:
        dataset: A record dataset.
        prompt_template: Holds `{prompt}`; also put around `paraphrased_prompt`.
        completion_template: Holds `{completion}`; also put around `paraphrase` and each entry of `perturbed`.

    Raises:
        ValueError: The records are chat messages and a template would change them.
    """
    if (prompt_template, completion_template) == ("{prompt}", "{completion}"):
        return dataset
    if len(dataset) and not isinstance(dataset[0]["prompt"], str):
        raise ValueError("Templates apply to string records, not to chat messages: leave the templates out.")

    def answer(text: str | None) -> str | None:
        return None if text is None else completion_template.format(completion=text)

    def other(text: str | None) -> str | None:
        return answer(text) if text and text.strip() else None  # an empty cell of a table is no text

    def fill(row: dict[str, Any]) -> dict[str, Any]:
        filled: dict[str, Any] = {
            "prompt": prompt_template.format(prompt=row["prompt"]),
            "completion": answer(row["completion"]),
        }
        if (row.get("paraphrased_prompt") or "").strip():
            filled["paraphrased_prompt"] = prompt_template.format(prompt=row["paraphrased_prompt"])
        if "paraphrase" in row:
            filled["paraphrase"] = other(row["paraphrase"])
        if "perturbed" in row:
            filled["perturbed"] = [text for wrong in row["perturbed"] or [] if (text := other(wrong)) is not None]
        return filled

    return dataset.map(fill, features=dataset.features)


def map_columns(dataset: Dataset, mapping: Mapping[str, str]) -> Dataset:
    """The dataset under our column names; `mapping` as in `load_records`.

    Raises:
        ValueError: A column that the mapping names is missing.
    """
    from datasets import concatenate_datasets

    if not mapping:
        return dataset
    check_columns(dataset, mapping.values())
    kept = [name for name in dataset.column_names if name not in {*mapping, *mapping.values()}]
    parts = [dataset.select_columns(old) for old in mapping.values()]
    parts = [part.rename_columns({old: new}) for part, (new, old) in zip(parts, mapping.items(), strict=True)]
    return concatenate_datasets([*parts, dataset.select_columns(kept)] if kept else parts, axis=1)


def _check_template(name: str, template: str, field: str) -> None:
    try:
        fields = [part for _, part, _, _ in string.Formatter().parse(template) if part is not None]
    except ValueError as error:
        raise ValueError(f"{name} is {template!r}, which is no template ({error}).") from error
    if fields != [field]:
        raise ValueError(f"{name} is {template!r}: it must hold {{{field}}} once, and no other name in braces.")
