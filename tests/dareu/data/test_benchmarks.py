"""LUME, RWKU, MUSE and multiple choice: whose each row is, and that none is lost."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from dareu.data import check_records, forget_retain_split
from dareu.data.parts import DataArguments, forget_names, load_parts, split_owners


@pytest.fixture(autouse=True, scope="module")
def private_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def parts_of(name: str, source: Path, **kwargs: Any) -> Any:
    given = {name: kwargs.pop(name) for name in ("prompt_template", "completion_template") if name in kwargs}
    parts = load_parts(DataArguments(dataset=name, dataset_kwargs={"source": str(source), **kwargs}, **given))
    check_records(parts.owners)
    return parts


STORY, ANN, BO = (f"{digit}f24c511-a319-4a9f-80c2-ca6fac131233" for digit in "8ab")


@pytest.fixture
def lume(tmp_path: Path) -> Path:
    def rows(document: str, name: str) -> list[dict[str, str]]:
        asked = f"What is {name}'s Social Security Number?"
        return [
            {"id": f"{document}sc1", "input": f"{name} was", "output": "born in May.", "task": "Task2"},
            {"id": f"{document}qa1", "input": asked, "output": "900514344", "task": "Task2"},
        ]

    story = {"id": f'"{STORY}"qa0', "input": "Who sings?", "output": "Vi.", "task": "Task1"}
    write(tmp_path / "lume" / "forget.jsonl", rows(ANN, "Ann Amber"))
    write(tmp_path / "lume" / "retain.jsonl", [*rows(BO, "Bo Black"), story])
    return tmp_path / "lume"


def test_lume_knows_documents(lume: Path) -> None:
    rows = parts_of("lume", lume).owners
    assert rows["owner"] == [BO, BO, STORY, ANN, ANN] and rows["subset"][-1] == "forget"
    assert rows["name"] == ["Bo Black", "Bo Black", None, "Ann Amber", "Ann Amber"]
    assert (rows[0]["prompt"], rows[0]["completion"]) == ("Bo Black was", " born in May.")
    assert rows[1]["prompt"] == "Question: What is Bo Black's Social Security Number?\nAnswer:"
    assert rows["facts"] == [[], ["900514344"], ["Vi."], [], ["900514344"]]
    plain = parts_of("lume", lume, prompt_template="{prompt}", completion_template="{completion}", tasks="Task1").owners
    assert plain["prompt"] == ["Who sings?"] and plain["completion"] == ["Vi."]


def test_lume_itself(shared_dir: Path) -> None:
    rows = parts_of("lume", shared_dir / "data" / "lume").owners
    assert len(rows) == 1986 + 1992 and Counter(rows["subset"]) == {"forget": 1986, "retain": 1992}
    asked = {owner for owner, subset in zip(rows["owner"], rows["subset"], strict=True) if subset == "forget"}
    args = DataArguments(num_forget=493)
    assert set(forget_names(args, rows)) == asked and len(asked) == 493
    assert set(split_owners(args, rows).forget["subset"]) == {"forget"}
    people = {(o, n) for o, n, task in zip(rows["owner"], rows["name"], rows["task"], strict=True) if task == "Task2"}
    assert len(people) == 500 and all(name for _, name in people)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "forget.jsonl").unlink(), r"has no file forget\*"),
        (
            lambda folder: write(folder / "forget.jsonl", [{"id": "7", "input": "a", "output": "b", "task": "T"}]),
            "id '7'",
        ),
        (lambda folder: write(folder / "forget.jsonl", [{"id": "7", "input": "a"}]), "no column 'output', 'task'"),
        (
            lambda folder: write(folder / "train_forget.jsonl", []),
            "has 'train_forget.jsonl' beside them",
        ),
        (lambda folder: write(folder / "forget-2.jsonl.zst", []), r"forget-2\.jsonl\.zst' \(files are told by their"),
    ],
)
def test_a_broken_lume_is_refused(lume: Path, change: Any, message: str) -> None:
    change(lume)
    with pytest.raises(ValueError, match=message):
        parts_of("lume", lume)


def test_other_files_beside_lumes_are_no_matter(lume: Path) -> None:
    write(lume / "member.jsonl", [{"input": "a"}])
    assert len(parts_of("lume", lume).owners) == 5


def test_a_task_that_lume_has_not_is_refused(lume: Path) -> None:
    with pytest.raises(ValueError, match="has no task 'Task3', only Task1, Task2"):
        parts_of("lume", lume, tasks=["Task3"])


@pytest.fixture
def rwku(tmp_path: Path) -> Path:
    folder = tmp_path / "rwku" / "1_Ann_Bo"
    cloze = {"query": "Ann Bo wrote ___.", "answer": "Tides", "type": "cloze", "subject": "Ann Bo"}
    asked = {"query": "Who wrote Tides?", "answer": "Ann Bo", "type": "role play", "subject": "Ann Bo"}
    write(folder / "forget_level1.json", [cloze])
    write(folder / "forget_level3.json", [asked])
    write(folder / "neighbor_level1.json", [cloze | {"neighbor": "Tides"}])
    write(folder / "intro.json", [{"intro": "Please forget Ann Bo.", "target": "Ann Bo"}])
    return tmp_path / "rwku"


def test_rwku_knows_subjects_and_neighbours(rwku: Path) -> None:
    rows = parts_of("rwku", rwku).owners
    assert rows["owner"] == ["Tides", "Ann Bo", "Ann Bo"] and rows["subset"] == ["neighbor", "forget", "forget"]
    assert rows["level"] == ["1", "1", "3"] and rows["kind"] == ["cloze", "cloze", "role play"]
    assert rows[1]["prompt"] == "Question: Fill in the blank: Ann Bo wrote ___.\nAnswer:"
    assert rows[2]["prompt"] == "Question: Who wrote Tides?\nAnswer:" and rows["facts"][2] == ["Ann Bo"]
    (rwku / "1_Ann_Bo" / "forget_level1.json").unlink()
    (rwku / "1_Ann_Bo" / "forget_level3.json").unlink()
    with pytest.raises(ValueError, match="has no probes"):
        parts_of("rwku", rwku)


def test_whom_rwku_spells_in_two_ways_is_one_owner(rwku: Path) -> None:
    probe = {"query": "Who?", "answer": "Bo", "type": "role play"}
    write(
        rwku / "2" / "forget_level1.json",
        [probe | {"subject": name} for name in ("Zo\u00e9", "Zoe\u0301 ", "Zo\u00e9")],
    )
    options = DataArguments(dataset="rwku", dataset_kwargs={"source": str(rwku)}, exclude_owners=["Zo\u00e9"])
    assert set(load_parts(options).owners["owner"]) == {"Tides", "Ann Bo"}
    write(rwku / "3" / "forget_level2.json", [probe | {"subject": None}])
    with pytest.raises(ValueError, match="Row 0 of RWKU's forget_level2 has no subject: fill it in"):
        load_parts(options)
    (rwku / "3" / "forget_level2.json").unlink()
    write(rwku / "3" / "forget_level1.json.zst", [])
    with pytest.raises(ValueError, match=r"forget_level1\.json\.zst"):
        parts_of("rwku", rwku)


def test_rwku_itself(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "rwku"
    rows = parts_of("rwku", folder).owners
    read = list(folder.rglob("*_level*.json"))
    assert len(rows) == sum(len(json.loads(path.read_text(encoding="utf-8"))) for path in read)
    assert set(forget_names(DataArguments(num_forget=2), rows)) == {"Stephen King", "Liza Minnelli"}
    split = forget_retain_split(rows, ["Stephen King"])
    assert set(split.forget["subset"]) == {"forget"} and "neighbor" in split.retain["subset"]


@pytest.fixture
def muse(tmp_path: Path) -> Path:
    folder = tmp_path / "muse"
    for owner in ("forget", "retain"):
        write(folder / "knowmem" / f"{owner}_qa.json", [{"question": f"Who {owner}s?", "answer": "Ann"}])
        write(folder / "privleak" / f"{owner}.json", [{"text": f"one two {owner} four"}])
    write(folder / "verbmem" / "forget.json", [{"prompt": "Once upon", "gt": " a time."}])
    write(folder / "privleak" / "holdout.jsonl", [{"text": "five six seven"}])
    return folder


def test_muse_knows_two_corpora(muse: Path) -> None:
    parts = parts_of("muse", muse)
    found = list(zip(*(parts.owners[name] for name in ("owner", "task", "prompt", "completion")), strict=True))
    assert found == [
        ("retain", "knowmem", "Question: Who retains?\nAnswer:", " Ann"),
        ("forget", "knowmem", "Question: Who forgets?\nAnswer:", " Ann"),
        ("retain", "verbmem", "one two", " retain four"),
        ("forget", "verbmem", "Once upon", " a time."),
    ]
    assert (parts.test["prompt"], parts.test["completion"]) == (["five"], [" six seven"])


def test_a_muse_that_is_not_whole_is_refused(muse: Path) -> None:
    write(muse / "privleak" / "holdout.jsonl", [{"text": "alone"}])
    with pytest.raises(ValueError, match="Text 0 of MUSE's privleak/holdout cannot be halved"):
        parts_of("muse", muse)
    write(muse / "verbmem" / "forget.csv", [])
    with pytest.raises(ValueError, match=r"has 'verbmem/forget\.json', 'verbmem/forget\.csv': keep one"):
        parts_of("muse", muse)
    (muse / "verbmem" / "forget.csv").unlink()
    (muse / "verbmem" / "forget.json").unlink()
    with pytest.raises(ValueError, match=r"has no verbmem/forget\.json"):
        parts_of("muse", muse)


QUESTION = {"question": "Which is a virus?", "choices": ["Oak", "Flu", "Salt"], "answer": 1}


def test_choices_are_letters_or_texts(tmp_path: Path) -> None:
    write(tmp_path / "wmdp" / "wmdp-bio.jsonl", [QUESTION])
    write(tmp_path / "wmdp" / "wmdp-cyber.jsonl", [QUESTION | {"answer": "C"}])
    write(tmp_path / "mmlu.jsonl", [QUESTION | {"answer": "0", "subject": "law"}])
    rows = parts_of("choices", tmp_path / "wmdp", retained=str(tmp_path / "mmlu.jsonl")).owners
    assert rows["owner"] == ["law", "wmdp-bio", "wmdp-cyber"] and rows["completion"] == [" A", " B", " C"]
    assert rows[1]["prompt"] == "Which is a virus?\nA. Oak\nB. Flu\nC. Salt\nAnswer:"
    assert rows["perturbed"][1] == [" A", " C"]
    rows = parts_of("choices", tmp_path / "wmdp", form="full").owners
    assert rows[0]["prompt"] == "Question: Which is a virus?\nAnswer:"
    assert rows[0]["completion"] == " Flu" and rows[0]["perturbed"] == [" Oak", " Salt"]


def test_a_choice_belongs_to_its_subject_or_to_its_file_in_the_folder(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write(tmp_path / name / "test.jsonl", [QUESTION, QUESTION | {"subject": 0}, QUESTION | {"subject": ""}])
    assert parts_of("choices", tmp_path).owners["owner"] == ["x/test", "0", "x/test", "y/test", "0", "y/test"]
    names = ("Zo\u00e9", "Zoe\u0301", "law")
    write(tmp_path / "a.jsonl", [QUESTION | {"subject": name} for name in names])
    options = {"dataset": "choices", "dataset_kwargs": {"source": str(tmp_path / "a.jsonl")}}
    assert load_parts(DataArguments(**options, exclude_owners=["Zoe\u0301"])).owners["owner"] == ["law"]


def test_choices_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(source: str, subset: str | None) -> Any:
        asked.append((source, subset))
        return datasets.DatasetDict({"test": Dataset.from_list([QUESTION]), "dev": Dataset.from_list([QUESTION] * 2)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    names = {"subsets": ["wmdp-bio", "wmdp-cyber"], "retained": "cais/mmlu"}
    rows = load_parts(DataArguments(dataset="choices", dataset_kwargs={"source": "cais/wmdp", **names})).owners
    assert asked == [("cais/mmlu", "all"), ("cais/wmdp", "wmdp-bio"), ("cais/wmdp", "wmdp-cyber")]
    assert rows["owner"] == ["all", "wmdp-bio", "wmdp-cyber"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 3}, "Row 0 of questions in .*: the answer is 3, which is none of its 3 options"),
        ({"answer": "D"}, "the answer is 'D'"),
        ({"answer": None}, "the answer is None"),
        ({"answer": "Flu"}, "the answer is 'Flu'"),
        ({"question": None}, "Row 0 of questions in .* has no question: fill it in"),
        ({"choices": ["Oak", None]}, "Row 0 of questions in .*: an option is missing"),
        ({"choices": ["Oak"]}, "there are 1 options: give 2 to 26"),
    ],
)
def test_a_question_without_its_answer_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path / "questions.jsonl", [QUESTION | change])
    with pytest.raises(ValueError, match=message):
        parts_of("choices", tmp_path / "questions.jsonl")
    write(tmp_path / "questions.jsonl", [QUESTION])
    with pytest.raises(ValueError, match="form is 'short'"):
        parts_of("choices", tmp_path / "questions.jsonl", form="short")
