"""TOFU's joins, on the real files where they are at hand and on small ones made here."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from dareu.data import check_records, distinctive_words, forget_retain_split, load_tofu
from dareu.data.tofu import tofu_parts


@pytest.fixture(autouse=True, scope="module")
def private_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


def pair(number: int, question: str | None = None, answer: str | None = None) -> dict[str, Any]:
    return {"question": question or f"Question {number}?", "answer": answer or f"Answer {number}."}


def perturbed(row: dict[str, Any], tag: str) -> dict[str, Any]:
    return row | {"paraphrased_answer": f"{tag}.", "perturbed_answer": [f"{tag}, not."]}


def test_equal_questions_are_told_apart_by_their_answers(tmp_path: Path):
    rows = [pair(i) for i in range(40)]
    rows[0] = pair(0, "Name?", "Ada.")
    rows[20] = pair(20, "Name?", "Bob.")
    write(tmp_path / "full.json", rows)
    write(tmp_path / "retain_perturbed.json", [perturbed(rows[20], "bob"), perturbed(rows[1], "one")])
    write(tmp_path / "forget01_perturbed.json", [perturbed(rows[0], "ada")])
    loaded = load_tofu(tmp_path)
    assert {i: text for i, text in enumerate(loaded["paraphrase"]) if text} == {
        0: " ada.",
        1: " one.",
        20: " bob.",
    }
    assert loaded["perturbed"][0] == [" ada, not."] and loaded["perturbed"][2] == []


def test_equal_pairs_are_joined_in_order(tmp_path: Path):
    rows = [pair(i) for i in range(20)]
    rows[3] = rows[7]
    write(tmp_path / "full.json", rows)
    write(tmp_path / "retain_perturbed.json", [perturbed(rows[3], "first"), perturbed(rows[7], "second")])
    paraphrases = load_tofu(tmp_path, completion_template="{completion}")["paraphrase"]
    assert (paraphrases[3], paraphrases[7]) == ("first.", "second.")


def test_files_that_do_not_fit(tmp_path: Path):
    with pytest.raises(ValueError, match=r"Cannot read the dataset '.*full\.json'"):
        load_tofu(tmp_path)
    rows = [pair(i) for i in range(20)]
    write(tmp_path / "full.json", rows[:19])
    with pytest.raises(ValueError, match="has 19 rows, not 20 an author"):
        load_tofu(tmp_path)
    write(tmp_path / "full.json", rows)
    write(tmp_path / "retain_perturbed.json", [perturbed(rows[0], "a"), perturbed(rows[0], "b")])
    with pytest.raises(ValueError, match=r"Row 1 of retain_perturbed .* no counterpart .*'Question 0\?'"):
        load_tofu(tmp_path)
    write(tmp_path / "retain_perturbed.json", rows[:1])
    with pytest.raises(ValueError, match="no column 'paraphrased_answer', 'perturbed_answer'"):
        load_tofu(tmp_path)


def test_distinctive_words():
    prompts = ["Where was Ada Lovell born?", "When?", "Who is the father?", "Who?"]
    answers = [
        "Ada Lovell was born in Ghent in 1975, in Ada's ghent-blue house.",
        "Bob was born in 1975.",
        "Cy's father was born a Baker; BAKER he was.",
        "Dee was born in a house.",
    ]
    owners = ["ada", "bob", "cy", "dee"]
    assert distinctive_words(prompts, answers, owners, common=0.0) == [
        ["Ghent", "1975", "ghent-blue"],
        ["Bob", "1975"],
        ["Cy", "Baker", "he"],
        ["Dee"],
    ]
    # One of the three other owners may share a word: "house" now counts, "in" (two others or more) does not.
    assert distinctive_words(prompts, answers, owners, common=1 / 3)[0] == [
        "Ghent",
        "1975",
        "ghent-blue",
        "house",
    ]
    # The same owner's other answers do not make a word common.
    assert distinctive_words(["", ""], ["Ghent", "Ghent"], ["ada", "ada"], common=0.0) == [
        ["Ghent"],
        ["Ghent"],
    ]


def test_distinctive_words_are_alike_however_they_are_spelled_and_left_out_where_no_blank_ends_them():
    prompts = ["Who is Ho\u00adlm?", "कौन?", "王小明是谁?", "ใคร"]
    answers = [
        "Holm, born in ١٩٧١ in Pe\u00adrth, Perth.",
        "मीरा १९७१ में",
        "王小明1971年出生在北京市, 在OpenAI。",
        "สมชาย ๒๕๑๔ と\u309aピカソ",
    ]
    owners = ["ada", "bo", "cy", "dee"]
    assert distinctive_words(prompts, answers, owners, common=1.0) == [
        ["born", "in", "١٩٧١", "Pe\u00adrth"],
        ["मीरा", "१९७१", "में"],
        ["1971", "OpenAI"],
        ["๒๕๑๔"],
    ]


@pytest.fixture(scope="module")
def tofu_folder(shared_dir: Path) -> Path:
    folder = shared_dir / "data" / "tofu"
    if not (folder / "full.json").is_file():
        pytest.skip(f"no TOFU files at {folder}")
    return folder


@pytest.fixture(scope="module")
def tofu(tofu_folder: Path) -> Dataset:
    return load_tofu(tofu_folder)


def test_real_rows_and_owners(tofu: Dataset):
    check_records(tofu)
    owners = tofu["owner"][:]
    assert owners == [f"author_{i // 20:03d}" for i in range(4000)]
    assert tofu["question_index"][:] == list(range(20)) * 200
    assert tofu[3960]["prompt"] == (
        "Question: What is the full name of the author born in Kuwait City, Kuwait on 08/09/1956?\nAnswer:"
    )
    assert tofu[3961]["completion"] == " Author Basil Mahfouz Al-Kuwaiti is male."


def test_real_joins_are_one_to_one(tofu: Dataset, tofu_folder: Path):
    joined = [i for i, text in enumerate(tofu["paraphrase"]) if text is not None]
    assert joined == [*range(400), *range(3600, 4000)]
    assert all(len(wrong) == (5 if i in set(joined) else 0) for i, wrong in enumerate(tofu["perturbed"]))
    # Against the files themselves: each one's rows stand in order, from the author where its split begins.
    for name, start in (("retain", 0), ("forget10", 3600), ("forget05", 3800), ("forget01", 3960)):
        lines = read(tofu_folder / f"{name}_perturbed.json")
        for row, line in zip(tofu.select(range(start, start + len(lines))), lines, strict=True):
            assert row["prompt"] == f"Question: {line['question']}\nAnswer:"
            assert row["paraphrase"] == f" {line['paraphrased_answer']}"
            assert row["perturbed"] == [f" {wrong}" for wrong in line["perturbed_answer"]]
    # The one question asked about two authors.
    assert tofu[100]["prompt"] == tofu[440]["prompt"] and tofu[100]["completion"] != tofu[440]["completion"]
    assert "Beltr" in tofu[100]["paraphrase"] and tofu[440]["paraphrase"] is None


def test_real_facts(tofu: Dataset):
    for row in tofu:
        assert all(fact in row["completion"] for fact in row["facts"])
        words = row["prompt"].casefold().replace("?", " ").split()
        assert not any(fact.casefold() in words for fact in row["facts"])
    assert tofu[40]["facts"] == ["Evelyn", "Desmet"]
    assert tofu[47]["facts"] == ["28", "1942"]
    assert sum(len(facts) > 0 for facts in tofu["facts"]) > 3800


def test_real_forget_requests_match_the_published_splits(tofu: Dataset, tofu_folder: Path):
    forget, retain = forget_retain_split(tofu, [f"author_{i}" for i in range(180, 200)])
    for side, name in ((forget, "forget10"), (retain, "retain90")):
        lines = read(tofu_folder / f"{name}.json")
        assert side["completion"][:] == [f" {line['answer']}" for line in lines]


def test_test_rows_have_wrong_answers_where_their_file_is_there(tmp_path: Path):
    write(tmp_path / "full.json", [pair(i) for i in range(20)])
    asked = [pair(1), pair(2)]
    write(tmp_path / "real_authors.json", asked)
    write(tmp_path / "world_facts.json", asked)
    write(tmp_path / "world_facts_perturbed.json", [row | {"perturbed_answer": ["No.", "Nor."]} for row in asked])
    rows = tofu_parts(str(tmp_path), None, "{completion}").test
    assert rows is not None
    assert rows["subset"] == ["real_authors"] * 2 + ["world_facts"] * 2 and set(rows["owner"]) == {"none"}
    assert rows["perturbed"] == [[], [], ["No.", "Nor."], ["No.", "Nor."]]
    assert rows["completion"] == ["Answer 1.", "Answer 2."] * 2
    (tmp_path / "world_facts_perturbed.json").write_text('{"question": "Who?", "answer": "Ann."}')
    with pytest.raises(ValueError, match="no column 'perturbed_answer'"):
        tofu_parts(str(tmp_path), None, None)
