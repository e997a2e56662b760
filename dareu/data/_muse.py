"""MUSE: news and books, with questions on them and passages of them (Shi et al. 2024, arXiv 2407.06460)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.data._tables import READERS
from dareu.data.loaders import QA_COMPLETION, QA_PROMPT, read_dataset
from dareu.data.records import DataParts, check_columns, quoted

if TYPE_CHECKING:
    from datasets import Dataset


def muse_parts(source: str, prompt_template: str | None, completion_template: str | None) -> DataParts:
    """The dataset `muse`: knowledge memorisation, verbatim memorisation, and texts that no model was trained on.

    MUSE knows no people: the **owner** is the corpus, "forget" or "retain", and the request is `forget_owners`: forget.

    | `task` | "forget" | "retain" | test rows |
    |---|---|---|---|
    | `knowmem` | questions of `knowmem/forget_qa` | of `knowmem/retain_qa` | |
    | `verbmem` | `verbmem/forget`, as MUSE cuts them | halves of `privleak/retain` | halves of `privleak/holdout` |

    MUSE's numbers are the ROUGE-L F1 of either task (`forget_rouge_f1`, with `part_column: task`), and PrivLeak. Its
    corpora themselves, in `raw`, are read as plain texts, a file an owner.

    Args:
        source: A folder in MUSE's layout, or "muse-bench/MUSE-News", "muse-bench/MUSE-Books".
        prompt_template: Text around each question; None: 'Question: … Answer:'. Passages go without.
        completion_template: Text around each answer; None: as for the questions.

    Raises:
        ValueError: A file is missing or unreadable, or a text has a single word.
    """
    forms = prompt_template or QA_PROMPT, completion_template or QA_COMPLETION
    rows: list[dict[str, str]] = []
    for owner in ("retain", "forget"):
        for row in _read(source, "knowmem", f"{owner}_qa", ("question", "answer")):
            texts = {
                "prompt": forms[0].format(prompt=row["question"]),
                "completion": forms[1].format(completion=row["answer"]),
            }
            rows.append({**texts, "owner": owner, "task": "knowmem"})
    rows += _halves(source, "retain", "retain")
    for row in _read(source, "verbmem", "forget", ("prompt", "gt")):
        rows.append({"prompt": row["prompt"], "completion": row["gt"], "owner": "forget", "task": "verbmem"})
    return DataParts(_dataset(rows), test=_dataset(_halves(source, "holdout", "none")))


def _halves(source: str, split: str, owner: str) -> list[dict[str, str]]:
    """Texts as their first half of words, and the rest."""
    rows = []
    for number, row in enumerate(_read(source, "privleak", split, ("text",))):
        words = row["text"].split(" ")
        prompt, completion = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
        if not (prompt.strip() and completion.strip()):
            raise ValueError(f"Text {number} of MUSE's privleak/{split} cannot be halved: it has a single word.")
        rows.append({"prompt": prompt, "completion": f" {completion}", "owner": owner, "task": "verbmem"})
    return rows


def _read(source: str, subset: str, split: str, columns: tuple[str, ...]) -> Any:
    folder = Path(source)
    if folder.is_dir():
        files = [path for kind in READERS if (path := folder / subset / f"{split}{kind}").is_file()]
        if not files:
            raise ValueError(f"MUSE in {source!r} has no {subset}/{split}.json: give a folder in MUSE's layout.")
        if len(files) > 1:
            raise ValueError(f"MUSE in {source!r} has {quoted(f'{subset}/{file.name}' for file in files)}: keep one.")
        rows = read_dataset(files[0])
    else:
        rows = read_dataset(source, subset=subset, split=split)
    check_columns(rows, columns)
    return rows


def _dataset(rows: list[dict[str, str]]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list(rows)
