"""RWKU: what models know of 200 famous people, and of what is near to them (Jin et al. 2024, arXiv 2406.10890)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.data._owners import tidy_owners
from dareu.data._tables import files_below
from dareu.data.loaders import QA_COMPLETION, QA_PROMPT, read_dataset
from dareu.data.records import check_columns, check_filled

if TYPE_CHECKING:
    from datasets import Dataset

#: RWKU's hub id.
RWKU = "jinzhuoran/RWKU"

_SETS = ("neighbor_level1", "neighbor_level2", "forget_level1", "forget_level2", "forget_level3")

#: Put before a text with a gap.
_CLOZE = "Fill in the blank: "


def rwku_rows(source: str, prompt_template: str | None, completion_template: str | None) -> Dataset:
    """The dataset `rwku`: probes of what a model that nobody fine-tuned knows.

    The **owner** is whom or what a probe is about: the subject of forget probes, the neighbour ("The Shawshank
    Redemption") of neighbour probes. Neighbours come first and subjects last, so that RWKU's own request is
    `num_forget`, the number of subjects. Whoever is a neighbour of one subject and a subject as well is one owner.

    Args:
        source: A subject's folder, a folder of several, or the hub id "jinzhuoran/RWKU"; what is read are
            `forget_level1` to `3` and `neighbor_level1` and `2`. Other files of RWKU hold no probes.
        prompt_template: Text around each probe; None: 'Question: … Answer:'. Texts with a gap open with an instruction.
        completion_template: Text around each answer; None: as for the probes.

    Returns:
        `prompt`, `completion`, `owner`, `subset` ("forget" or "neighbor"), `level` ("1" to "3"), `kind` ("cloze",
        "simple question", "role play" …), `name` (the owner) and `facts` (the answer).

    Raises:
        ValueError: There are no probes, or a file is unreadable.
    """
    from datasets import Dataset, Features, List, Value

    forms = prompt_template or QA_PROMPT, completion_template or QA_COMPLETION
    rows = []
    for name in _SETS:
        subset, _, level = name.partition("_level")
        for row in (row for part in _parts(source, name) for row in part):
            owner = row["subject"] if subset == "forget" else row["neighbor"]
            probe = _CLOZE + row["query"] if row["type"] == "cloze" else row["query"]
            rows.append(
                {
                    "prompt": forms[0].format(prompt=probe),
                    "completion": forms[1].format(completion=row["answer"]),
                    "owner": owner,
                    "subset": subset,
                    "level": level,
                    "kind": row["type"],
                    "name": owner,
                    "facts": [row["answer"]],
                }
            )
    if not any(row["subset"] == "forget" for row in rows):
        raise ValueError(f"RWKU in {source!r} has no probes: give a folder with forget_level1.json, or {RWKU!r}.")
    text = Value("string")
    columns = ("prompt", "completion", "owner", "subset", "level", "kind", "name")
    features = Features({**dict.fromkeys(columns, text), "facts": List(text)})
    return tidy_owners(Dataset.from_list(rows, features=features))


def _parts(source: str, name: str) -> list[Any]:
    """The files of one set, one of each subject."""
    if source == RWKU:
        parts = [read_dataset(source, subset=name, split="test")]
    else:
        folder = Path(source)
        files = files_below(folder) if folder.is_dir() else []
        files = [path for path in files if path.name.split(".")[0] == name]
        parts = [read_dataset(path) for path in files]
    for part in parts:
        about = "subject" if name.startswith("forget") else "neighbor"
        check_columns(part, ("query", "answer", "type", about))
        check_filled(part, ("query", "answer", "type", about), f"RWKU's {name}")
    return parts
