"""Multiple choice: WMDP (Li et al. 2024, arXiv 2403.03218), MMLU, and data in their form."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dareu.data._owners import tidy_owners
from dareu.data._tables import bare_name
from dareu.data.loaders import files_in, read_dataset
from dareu.data.records import check_columns, check_filled

if TYPE_CHECKING:
    from datasets import Dataset


def choice_rows(
    source: str,
    *,
    form: Literal["letters", "full"] = "letters",
    retained: str | None = None,
    subsets: list[str] | str | None = None,
    retained_subset: str | None = "all",
    split: str = "test",
) -> Dataset:
    """The dataset `choices`: questions with options, one of which is right.

    The **owner** is a row's `subject` where there is that column, as in MMLU; else the subset of the hub or the file
    that it stands in ("wmdp-bio"; in a folder, its path there).

    Args:
        source: A file or folder whose rows have `question`, `choices` (a list) and `answer` (the right one's number
            from 0, or letter), or a hub id such as "cais/wmdp".
        form: "letters": the options stand in the prompt under A, B, C, …, and the completion is a letter, as WMDP is
            scored; "full": the completion is the option's own text, and the prompt the question alone.
        retained: Another source like it, whose rows come first: "cais/mmlu".
        subsets: Of a hub dataset, which subsets are read: ["wmdp-bio", "wmdp-cyber"].
        retained_subset: The subset of a retained hub dataset.
        split: The split of hub datasets.

    Returns:
        `prompt`, `completion`, `owner` and `perturbed`, the other options as completions.

    Raises:
        ValueError: A source cannot be read, a row has fewer than two options or more than 26, or its answer is none
            of them.
    """
    from datasets import Dataset

    if form not in ("letters", "full"):
        raise ValueError(f"form is {form!r}: give 'letters' or 'full'.")
    named = [subsets] if isinstance(subsets, str) else subsets
    rows: list[dict[str, Any]] = []
    sources = [] if retained is None else [(retained, None if retained_subset is None else [retained_subset])]
    for name, of_hub in [*sources, (source, named)]:
        for owner, part in _parts(name, of_hub, split):
            check_columns(part, ("question", "choices", "answer"))
            check_filled(part, ("question", "choices"), f"{owner} in {name!r}")
            for number, row in enumerate(part):
                try:
                    subject = row.get("subject")
                    rows.append(_record(row, form, owner if subject in (None, "") else str(subject)))
                except ValueError as error:
                    raise ValueError(f"Row {number} of {owner} in {name!r}: {error}") from error
    return tidy_owners(Dataset.from_list(rows))


def _record(row: dict[str, Any], form: str, owner: str) -> dict[str, Any]:
    options, letters = list(row["choices"] or ()), string.ascii_uppercase
    if not 2 <= len(options) <= len(letters):
        raise ValueError(f"there are {len(options)} options: give 2 to {len(letters)}.")
    if None in options:
        raise ValueError("an option is missing (None): fill it in or drop the row.")
    answer = row["answer"]
    right = letters.find(answer) if isinstance(answer, str) and len(answer) == 1 and not answer.isdigit() else answer
    try:
        right = int(right)
    except (TypeError, ValueError):
        right = -1
    if not 0 <= right < len(options):
        raise ValueError(f"the answer is {answer!r}, which is none of its {len(options)} options.")
    if form == "letters":
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, options, strict=False))
        prompt, said = f"{row['question']}\n{listed}\nAnswer:", list(letters[: len(options)])
    else:
        prompt, said = f"Question: {row['question']}\nAnswer:", [str(option) for option in options]
    completions = [f" {text}" for text in said]
    return {
        "prompt": prompt,
        "completion": completions[right],
        "owner": owner,
        "perturbed": [text for number, text in enumerate(completions) if number != right],
    }


def _parts(source: str, subsets: list[str] | None, split: str) -> list[tuple[str, Any]]:
    """The rows of each file or subset, with its name."""
    path = Path(source)
    if path.is_dir() and (files := files_in(path)):
        return [(bare_name(file.relative_to(path)), read_dataset(file)) for file in files]
    if path.exists():
        return [(Path(bare_name(path)).name, read_dataset(path))]
    names: list[str | None] = [*subsets] if subsets else [None]
    return [(name or source, read_dataset(source, subset=name, split=split)) for name in names]
