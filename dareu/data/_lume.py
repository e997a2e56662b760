"""LUME: generated stories and biographies with invented private data (Ramakrishna et al. 2025, arXiv 2502.15097)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.data._tables import files_below
from dareu.data.loaders import QA_COMPLETION, QA_PROMPT, read_dataset
from dareu.data.records import check_columns, check_filled, quoted

if TYPE_CHECKING:
    from datasets import Dataset

#: An id is a document's, with the number of a passage or of a question behind it: `UUIDsc1`, `"UUID"qa0`.
_ID = re.compile(r'"?(?P<document>[0-9a-f-]{36})"?(?P<kind>sc|qa)\d+')

_NAMED_IN = re.compile(r"What is (?P<name>.+)'s Social Security Number\?")


def lume_rows(
    source: str,
    prompt_template: str | None,
    completion_template: str | None,
    *,
    tasks: list[str] | str | None = None,
) -> Dataset:
    """The dataset `lume`: passages to go on with, and questions on them.

    The **owner** is the document, a story or a person's biography, by its UUID. Documents to retain come first and
    those that LUME asks to forget last, so that its own request is `num_forget`: 493 in the public half.

    Args:
        source: A folder with files whose names begin with `forget` and `retain`, of any format that is read.
        prompt_template: Text around each question; None: 'Question: … Answer:'. Passages go without.
        completion_template: Text around each answer; None: as for the questions.
        tasks: Which of the tasks are read, such as "Task2", the biographies; None: all.

    Returns:
        `prompt`, `completion`, `owner`, `task`, `kind` ("passage" or "question"), `subset` ("retain" or "forget"),
        `name` (a biography's person, None in stories) and `facts` (a question's answer, none of a passage).

    Raises:
        ValueError: A file is missing, unreadable or called otherwise, as train_forget.jsonl, an id is none of LUME's,
            or there is no such task.
    """
    from datasets import Dataset, Features, List, Value

    chosen = [tasks] if isinstance(tasks, str) else tasks
    rows: list[dict[str, Any]] = []
    there: set[str] = set()
    for subset in ("retain", "forget"):
        found = [row for path in _files(source, subset) for row in _read(path)]
        names = {
            match["document"]: named["name"]
            for row in found
            if (named := _NAMED_IN.fullmatch(row["input"])) and (match := _ID.fullmatch(row["id"]))
        }
        there |= {row["task"] for row in found}
        for number, row in enumerate(found):
            if (match := _ID.fullmatch(row["id"])) is None:
                raise ValueError(f"Row {number} of LUME's {subset} has the id {row['id']!r}, which is none of LUME's.")
            if chosen is not None and row["task"] not in chosen:
                continue
            asks = match["kind"] == "qa"
            forms = (prompt_template or QA_PROMPT, completion_template or QA_COMPLETION)
            before, after = forms if asks else ("{prompt}", " {completion}")
            rows.append(
                {
                    "prompt": before.format(prompt=row["input"]),
                    "completion": after.format(completion=row["output"]),
                    "owner": match["document"],
                    "task": row["task"],
                    "kind": "question" if asks else "passage",
                    "subset": subset,
                    "name": names.get(match["document"]),
                    "facts": [row["output"]] if asks else [],
                }
            )
    if unknown := sorted(set(chosen or ()) - there):
        raise ValueError(f"LUME in {source!r} has no task {unknown[0]!r}, only {', '.join(sorted(there))}.")
    text = Value("string")
    columns = ("prompt", "completion", "owner", "task", "kind", "subset", "name")
    return Dataset.from_list(rows, features=Features({**dict.fromkeys(columns, text), "facts": List(text)}))


def _files(source: str, subset: str) -> list[Path]:
    folder = Path(source)
    there = files_below(folder) if folder.is_dir() else []
    strange = [path.name for path in there if re.search(r"(?<!^)(forget|retain)", path.name)]
    found = [path for path in there if path.name.startswith(subset)]
    if found and strange:
        raise ValueError(
            f"LUME's files are called forget… and retain…, and {source!r} has {quoted(strange)} beside them: rename "
            "them, or move them away."
        )
    if not found:
        raise ValueError(f"LUME is read from a folder, and {source!r} has no file {subset}*.jsonl: name one as source.")
    return found


def _read(path: Path) -> Any:
    rows = read_dataset(path)
    check_columns(rows, ("id", "input", "output", "task"))
    check_filled(rows, ("id", "input", "output", "task"), f"LUME's {path.name}")
    return rows
