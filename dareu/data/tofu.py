"""TOFU: 200 fictitious authors with 20 question-answer pairs each (Maini et al. 2024, arXiv 2401.06121)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.data._tables import files_below
from dareu.data.facts import distinctive_words
from dareu.data.loaders import QA_COMPLETION, QA_PROMPT, apply_templates, read_dataset
from dareu.data.records import DataParts, check_columns, check_records, quoted

if TYPE_CHECKING:
    from datasets import Dataset

#: TOFU's hub id.
TOFU = "locuslab/TOFU"

ROWS_PER_AUTHOR = 20
PERTURBED = ("forget01_perturbed", "forget05_perturbed", "forget10_perturbed", "retain_perturbed")


#: Names of its files; `full.json` alone says little.
_FILES = re.compile(
    r"(full|(forget|holdout)(01|05|10)(_perturbed)?|retain(90|95|99|_perturbed)|(real_authors|world_facts)(_perturbed)?"
    r"|idontknow)\.jsonl?"
)


def is_tofu(source: str) -> bool:
    """Whether a path or hub id is TOFU: its own id, or a folder of its files alone whose full set is no records."""
    full = os.path.join(source, "full.json")
    if source == TOFU or not os.path.isfile(full):
        return source == TOFU
    try:
        if not all(_FILES.fullmatch(path.name) for path in files_below(Path(source))):
            return False
    except OSError:  # whoever reads it says so
        return False
    try:
        return not {"prompt", "completion", "owner"} & set(read_dataset(full).column_names)
    except ValueError:  # so says the loader
        return True


def tofu_parts(source: str, prompt_template: str | None, completion_template: str | None) -> DataParts:
    """The dataset `tofu`: the authors, and as test rows the questions on real authors and world facts.

    Args:
        source: See `load_tofu`; the test rows stand in `real_authors.json` and `world_facts.json`, where these are.
        prompt_template: Text around each question; None: 'Question: … Answer:'.
        completion_template: Text around each answer; None: as for the questions.

    Raises:
        ValueError: As `load_tofu` says, or a test file cannot be read.
    """
    forms = prompt_template or QA_PROMPT, completion_template or QA_COMPLETION
    rows = load_tofu(source, prompt_template=forms[0], completion_template=forms[1])
    return DataParts(rows, test=_test_rows(source, *forms))


def load_tofu(
    source: str | Path, *, prompt_template: str = QA_PROMPT, completion_template: str = QA_COMPLETION
) -> Dataset:
    """Loads TOFU's full set as records; TOFU's own splits are left to `forget_retain_split`.

    The paraphrased and wrong answers stand in files of their own, for authors 0-19 and 180-199 only, and are
    joined by question and answer ("What is the full name of the author?" is asked about two authors).

    Args:
        source: A folder with `full.json` and any of `forget01_perturbed.json`, `forget05_perturbed.json`,
            `forget10_perturbed.json` and `retain_perturbed.json`, or a hub id ("locuslab/TOFU").
        prompt_template: Text around each question.
        completion_template: Text around each answer, right, paraphrased or wrong.

    Returns:
        4000 rows in the order of the file: `prompt`, `completion`, `owner` ("author_000" to "author_199", 20
        rows each), `question_index` (0 to 19 within the author), `paraphrase` and `paraphrased_prompt` (the answer and
        the question in other words, or None), `perturbed`
        (wrong answers; empty where there are none) and `facts` (see `distinctive_words`).

    Raises:
        ValueError: A file cannot be read, lacks a column, or does not fit the full set.
    """
    full = _read(source, "full", ("question", "answer"))
    if len(full) == 0 or len(full) % ROWS_PER_AUTHOR:
        raise ValueError(
            f"The full set in {str(source)!r} has {len(full)} rows, not {ROWS_PER_AUTHOR} an author: "
            "download TOFU's full.json again."
        )
    if more := [name for name in full.column_names if name not in ("question", "answer")]:
        raise ValueError(
            f"The full set in {str(source)!r} has the column {quoted(more)}, which TOFU has not: leave it out, or, if "
            "these are rows of your own, give the dataset 'records', and the folder as source in dataset_kwargs."
        )
    others = _perturbed(full, source)
    owners = [f"author_{row // ROWS_PER_AUTHOR:03d}" for row in range(len(full))]
    questions, answers = list(full["question"]), list(full["answer"])
    return apply_templates(
        _dataset(
            prompt=questions,
            completion=answers,
            owner=owners,
            question_index=[row % ROWS_PER_AUTHOR for row in range(len(full))],
            paraphrased_prompt=[
                others[row].get("paraphrased_question") if row in others else None for row in range(len(full))
            ],
            paraphrase=[others[row]["paraphrased_answer"] if row in others else None for row in range(len(full))],
            perturbed=[others[row]["perturbed_answer"] if row in others else [] for row in range(len(full))],
            facts=distinctive_words(questions, answers, owners),
        ),
        prompt_template,
        completion_template,
    )


def _perturbed(full: Dataset, source: str | Path) -> dict[int, dict[str, Any]]:
    """Row of the full set -> row of a perturbed file. Where files overlap, they agree."""
    rows_of: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(full["question"], full["answer"], strict=True)):
        rows_of[key].append(row)
    joined: dict[int, dict[str, Any]] = {}
    for name in _present(source):
        perturbed = _read(source, name, ("question", "answer", "paraphrased_answer", "perturbed_answer"))
        seen: defaultdict[tuple[str, str], int] = defaultdict(int)
        for number, other in enumerate(perturbed):
            key = other["question"], other["answer"]
            if seen[key] == len(rows_of[key]):
                raise ValueError(
                    f"Row {number} of {name} in {str(source)!r} has no counterpart in the full set "
                    f"(question {other['question']!r}): take all files from one release of TOFU."
                )
            # A pair that occurs more than once is joined in order.
            joined[rows_of[key][seen[key]]] = other
            seen[key] += 1
    return joined


def _present(source: str | Path) -> Iterable[str]:
    if Path(source).is_dir():
        return [name for name in PERTURBED if (Path(source) / f"{name}.json").is_file()]
    return PERTURBED


def _read(source: str | Path, name: str, columns: Iterable[str]) -> Dataset:
    folder = Path(source)
    dataset = read_dataset(folder / f"{name}.json") if folder.is_dir() else read_dataset(source, subset=name)
    check_columns(dataset, columns)
    return dataset


def _dataset(**columns: list[Any]) -> Dataset:
    from datasets import Dataset, Features, List, Value

    text = Value("string")
    types = {"question_index": Value("int64"), "perturbed": List(text), "facts": List(text)}
    return Dataset.from_dict(columns, features=Features({name: types.get(name, text) for name in columns}))


def _test_rows(source: str, prompt_template: str, completion_template: str) -> Dataset | None:
    """TOFU's questions on real authors and world facts, which no fine-tuning answers.

    `subset` says which of the two, and `perturbed` holds wrong answers: of the perturbed file, which has the same rows,
    where it is there.
    """
    from datasets import concatenate_datasets

    found = []
    for subset in ("real_authors", "world_facts"):
        names = [f"{subset}_perturbed", subset]
        there = [name for name in names if source == TOFU or (Path(source) / f"{name}.json").is_file()]
        if not there:
            continue
        rows = _read(source, there[0], ("question", "answer", *(["perturbed_answer"] if there[0] != subset else [])))
        number = len(rows)
        found.append(
            _dataset(
                prompt=list(rows["question"]),
                completion=list(rows["answer"]),
                owner=["none"] * number,
                subset=[subset] * number,
                perturbed=list(rows["perturbed_answer"]) if there[0] != subset else [[]] * number,
            )
        )
    if not found:
        return None
    rows = concatenate_datasets(found)
    check_records(rows)
    return apply_templates(rows, prompt_template, completion_template)
