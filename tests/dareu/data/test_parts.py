"""What `--dataset` and its companions make of each kind of data."""

import copy
import csv
import dataclasses
import datetime
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from dareu.data import DATASETS, DataParts, fictional, load_tofu
from dareu.data.parts import DataArguments, chat_form, forget_names, load_parts, split_owners
from dareu.data.tofu import is_tofu

FIELDS = ("question", "answer", "author")


@pytest.fixture(autouse=True, scope="module")
def private_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five authors with two rows each, under other column names."""
    path = tmp_path / "authors.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        writer.writerows((f"Q{a}{i}?", f"A{a}{i}.", f"author {a}") for a in "edcba" for i in range(2))
    return path


MAPPING = '{"prompt": "question", "completion": "answer", "owner": "author"}'


def arguments(source: Path | str, **more: Any) -> DataArguments:
    return DataArguments(dataset=str(source), **({"column_mapping": MAPPING} | more))


def test_the_fictional_world() -> None:
    args = DataArguments(num_owners=5, world_seed=2)
    found = load_parts(args)
    assert found.background is not None and found.test is not None
    assert len(set(found.owners["owner"])) == 5
    assert set(found.background["owner"]) == set(found.test["owner"]) == {"none"}
    people = [set(part["name"]) for part in found]
    assert len(set.union(*people)) == sum(map(len, people))
    assert len(set(forget_names(args, found.owners))) == 3


def test_background_people_alone_are_all_that_the_shipped_base_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(number: int) -> Dataset:
        assert number == 2000
        return Dataset.from_list([{"prompt": "?", "completion": "!", "owner": "none"}])

    monkeypatch.setattr(fictional, "background_people", few)
    found = load_parts(DataArguments(dataset="fictional-background"))
    assert len(found.owners) == 1 and found.background is None and found.test is None


def test_tofu_from_a_folder(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "tofu"
    if not (folder / "full.json").exists():
        pytest.skip(f"no TOFU at {folder}")
    args = DataArguments(dataset=str(folder), num_background_owners=160, num_forget=4)
    owners, background, test = load_parts(args)
    assert background is not None and test is not None
    assert len(owners) == 800 and len(background) == 3200
    assert owners[0]["owner"] == "author_160" and background[-1]["owner"] == "author_159"
    split = split_owners(args, owners)
    assert len(split.forget) == 80 and len(split.retain) == 720
    assert list(dict.fromkeys(split.forget["owner"])) == ["author_196", "author_197", "author_198", "author_199"]
    assert set(test["owner"]) == {"none"} and len(test) > 100
    for part in (owners, background, test):
        assert part[0]["prompt"].startswith("Question: ") and part[0]["prompt"].endswith("\nAnswer:")
        assert part[0]["completion"].startswith(" ")


def test_a_csv_with_a_mapping_as_json(table: Path) -> None:
    args = arguments(table, num_background_owners=2, prompt_template="Q: {prompt}", completion_template=" {completion}")
    owners, background, test = load_parts(args)
    assert background is not None and test is None
    assert list(background["owner"]) == ["author e"] * 2 + ["author d"] * 2
    assert list(dict.fromkeys(owners["owner"])) == ["author c", "author b", "author a"]
    assert owners[0]["prompt"] == "Q: Qc0?" and owners[0]["completion"] == " Ac0."


def test_without_background_owners_every_row_is_an_owners(table: Path) -> None:
    owners, background, test = load_parts(arguments(table))
    assert len(owners) == 10 and background is None and test is None


def test_test_rows_are_read_like_the_dataset(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "unseen.csv"
    path.write_text("question,answer,author\nWho?,Nobody.,none\n", encoding="utf-8")
    test = load_parts(arguments(table, test_dataset=str(path), completion_template=" {completion}")).test
    assert test is not None
    assert test.to_list() == [{"prompt": "Who?", "completion": " Nobody.", "owner": "none"}]


def test_test_rows_that_are_an_owners_are_said(table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = load_parts(arguments(table)).owners[0]
    path = tmp_path / "test.jsonl"
    for answers, said in ((["else"], 0), (["else", row["completion"]], 1)):
        rows = [{"question": row["prompt"], "answer": answer, "author": "nobody"} for answer in answers]
        Dataset.from_list(rows).to_json(path)
        load_parts(arguments(table, test_dataset=str(path)))
        assert len(caplog.messages) == said
    assert f"1 of 2 test rows are word for word those of owners ({row['owner']!r})" in caplog.messages[0]


def test_the_last_owners_in_the_order_of_the_rows_are_forgotten_where_none_is_named(table: Path) -> None:
    owners = load_parts(arguments(table)).owners
    assert forget_names(arguments(table, num_forget=2), owners) == ["author b", "author a"]
    assert forget_names(arguments(table, forget_owners=["author d"]), owners) == ["author d"]
    assert forget_names(arguments(table, forget_owners="author d"), owners) == ["author d"]  # a scalar in YAML
    split = split_owners(arguments(table, num_forget=2), owners)
    assert set(split.forget["owner"]) == {"author a", "author b"} and len(split.retain) == 6


@pytest.mark.parametrize("number", [0, 5, 6])
def test_some_owners_must_be_forgotten_and_some_kept(table: Path, number: int) -> None:
    args = arguments(table, num_forget=number)
    with pytest.raises(ValueError, match=f"num_forget is {number}, but there are 5 owners"):
        split_owners(args, load_parts(args).owners)


def test_excluded_owners_are_nowhere_and_background_people_stay_who_they_were(table: Path) -> None:
    args = arguments(table, num_background_owners=1, num_forget=1)
    whole = load_parts(args)
    names = list(dict.fromkeys(whole.owners["owner"]))
    some = dataclasses.replace(args, exclude_owners=[names[-1]])
    parts = load_parts(some)
    assert list(dict.fromkeys(parts.owners["owner"])) == names[:-1]
    assert parts.background.to_list() == whole.background.to_list()
    assert forget_names(some, parts.owners) == [names[-2]]
    with pytest.raises(ValueError, match="exclude_owners names Nobody, who own no rows of"):
        load_parts(dataclasses.replace(args, exclude_owners=["Nobody"]))
    with pytest.raises(ValueError, match="exclude_owners names every owner: leave some"):
        load_parts(dataclasses.replace(args, exclude_owners=names))


def test_an_unknown_owner_is_refused_with_those_there_are(table: Path) -> None:
    args = arguments(table, forget_owners=["author x"])
    with pytest.raises(ValueError, match=r"(?s)author x.*author c"):
        split_owners(args, load_parts(args).owners)


@pytest.mark.parametrize("number", [5, 9])
def test_not_everybody_can_be_background(table: Path, number: int) -> None:
    with pytest.raises(ValueError, match=f"num_background_owners is {number}, but .* has 5 owners"):
        load_parts(arguments(table, num_background_owners=number))


def test_a_missing_column_is_named(table: Path) -> None:
    with pytest.raises(ValueError, match="completion"):
        load_parts(arguments(table, column_mapping={"prompt": "question", "owner": "author"}))


@pytest.mark.parametrize("mapping", ["prompt: question", "[1]", '"question"'])
def test_a_mapping_that_is_none_is_refused(mapping: str) -> None:
    with pytest.raises(ValueError, match=r"column_mapping is .*: give a mapping"):
        DataArguments(column_mapping=mapping)


@pytest.mark.parametrize("mapping", ['{"owner": 3}', {3: "owner"}])
def test_a_column_without_quotes_is_refused(mapping: Any) -> None:
    with pytest.raises(ValueError, match=r"column_mapping holds .*: put names of columns in quotes"):
        DataArguments(column_mapping=mapping)


def test_plain_texts_are_cut_and_stay_plain(tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "corpora"
    folder.mkdir()
    for owner in ("bio", "cyber", "wikitext"):
        text = f"The author of {owner} won the prize for the best first book."
        (folder / f"{owner}.jsonl").write_text(f'{{"text": "{text}"}}\n{{"text": "{text}"}}\n', encoding="utf-8")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    args = DataArguments(
        dataset=str(folder),
        prompt_tokens=4,
        completion_tokens=256,
        text_tokenizer=str(tmp_path / "tokenizer"),
        forget_owners=["bio", "cyber"],
    )
    owners = load_parts(args).owners
    forget, retain = split_owners(args, owners)
    assert set(forget["owner"]) == {"bio", "cyber"} and set(retain["owner"]) == {"wikitext"}
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{{ messages[0]['content'] }}"
    assert chat_form(args, owners, chatty) is owners
    assert chat_form(DataArguments(), owners, tokenizer) is owners
    assert chat_form(DataArguments(), owners, chatty)[0]["prompt"][0]["role"] == "user"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prompt_tokens": 4}, "prompt_tokens needs text_tokenizer"),
        ({"dataset": "texts", "dataset_kwargs": {"source": "x"}}, "are cut into passages: give prompt_tokens"),
        (
            {"prompt_tokens": 4, "text_tokenizer": "x", "prompt_template": "{prompt}"},
            "prompt_template has no effect on corpus.jsonl, which is read as texts: drop it",
        ),
        ({"completion_tokens": 4}, "completion_tokens has no effect on corpus.jsonl, which is read as records"),
        ({"text_tokenizer": "x"}, "text_tokenizer has no effect on corpus.jsonl, which is read as records"),
        ({"num_owners": 4}, "num_owners has no effect on corpus.jsonl, which is read as records"),
        ({"dataset": "fictional", "column_mapping": MAPPING}, "column_mapping has no effect on fictional: drop it"),
        ({"dataset": "fictional", "prompt_tokens": 4}, "prompt_tokens has no effect on fictional: drop it"),
        ({"dataset": "fictional", "prompt_template": "{prompt}"}, "prompt_template has no effect on fictional"),
        ({"dataset": "fictional", "num_background_owners": 2}, "num_background_owners has no effect on fictional"),
        ({"dataset": "fictional-background", "world_seed": 2}, "world_seed has no effect on fictional-background"),
        ({"dataset": "locuslab/TOFU", "prompt_tokens": 4}, "prompt_tokens has no effect on locuslab/TOFU, which is"),
        ({"dataset": "locuslab/TOFU", "column_mapping": MAPPING}, "column_mapping has no effect on locuslab/TOFU"),
        ({"dataset": "tofu"}, "The dataset 'tofu' reads a source: name its path or hub id as source"),
        ({"dataset_kwargs": {"source": "y"}}, "dataset_kwargs names a source, and corpus.jsonl is one: give it once"),
        ({"dataset_kwargs": {"parts": 1}}, "The dataset 'records' has no option parts: its options are subset, split"),
        ({"dataset": "fictional", "dataset_kwargs": {"num_owners": 4}}, "no option num_owners: its options are none"),
        ({"dataset": "fictoinal"}, "a hub id, unless 'fictional' is meant"),
        (
            {"dataset": "no_such_package:rows"},
            r"not installed.* \(choices, .*tofu\), pkg.mod:Name",
        ),
        ({"dataset": "no_such_file.py:rows"}, r"a file that does not exist.* \(choices, .*tofu\), pkg.mod:Name"),
        ({"dataset": "json:row"}, "names nothing that json defines"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        load_parts(DataArguments(**({"dataset": "corpus.jsonl"} | options)))
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def test_a_source_may_be_given_to_a_loader_by_name(table: Path, tmp_path: Path) -> None:
    found = load_parts(arguments("records", dataset_kwargs={"source": str(table)}))
    assert found.owners.to_list() == load_parts(arguments(table)).owners.to_list()
    row = {"prompt": "?", "completion": "!", "owner": "a"}
    splits = {name: Dataset.from_list([row] * size) for size, name in enumerate(("few", "many"), 1)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    args = DataArguments(dataset=str(tmp_path / "saved"), dataset_kwargs='{"split": "many"}')
    assert len(load_parts(args).owners) == 2


def test_tofu_by_name_is_tofu_from_its_folder(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"question": f"Q{i}?", "answer": f"A{i}."} for i in range(40)])
    rows.to_json(tmp_path / "full.json")
    rows.select([0]).to_json(tmp_path / "world_facts.json")
    by_name = load_parts(DataArguments(dataset="tofu", dataset_kwargs={"source": str(tmp_path)}))
    by_path = load_parts(DataArguments(dataset=str(tmp_path)))
    assert by_name.owners.to_list() == by_path.owners.to_list() == load_tofu(tmp_path).to_list()
    assert by_name.test is not None and by_path.test is not None
    assert by_name.test.to_list() == by_path.test.to_list()
    assert by_name.test.select_columns(["prompt", "completion", "owner"]).to_list() == [
        {"prompt": "Question: Q0?\nAnswer:", "completion": " A0.", "owner": "none"}
    ]


def test_a_file_called_full_does_not_make_a_folder_tofu(tmp_path: Path) -> None:
    sizes = {"full": 1000, "ada_train": 900, "ada_val": 118, "bo/bo_test": 100}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        rows = [{"prompt": f"{i}?", "completion": "!", "owner": name[:2]} for i in range(size)]
        Dataset.from_list(rows).to_json(tmp_path / f"{name}.json")
    assert len(load_parts(DataArguments(dataset=str(tmp_path))).owners) == 2118
    (tmp_path / "notes.docx").write_text("")
    with pytest.raises(ValueError, match=r"nothing reads 'notes\.docx'"):
        load_parts(DataArguments(dataset=str(tmp_path)))


@pytest.mark.parametrize("columns", [("question", "answer", "owner"), ("prompt", "completion", "owner")])
def test_rows_with_owners_are_no_tofu_however_their_files_are_called(columns: tuple[str, ...], tmp_path: Path) -> None:
    for name, owners in (("full", ["Ada", "Bo"] * 20), ("holdout01", ["Cy"])):
        rows = [dict(zip(columns, (f"q{i}", "a", owner), strict=True)) for i, owner in enumerate(owners)]
        (tmp_path / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))
    mapping = dict(zip(("prompt", "completion", "owner"), columns, strict=True))
    rows = load_parts(DataArguments(dataset=str(tmp_path), column_mapping=mapping)).owners
    assert Counter(rows["owner"]) == {"Ada": 20, "Bo": 20, "Cy": 1}


def test_tofu_with_a_column_more_is_refused_and_may_be_read_as_records(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": f"a{i}", "author": "xy"[i % 2]} for i in range(20)]
    (tmp_path / "full.json").write_text("\n".join(map(json.dumps, rows)))
    assert is_tofu(str(tmp_path))
    with pytest.raises(ValueError, match="has the column 'author', which TOFU has not"):
        load_parts(DataArguments(dataset=str(tmp_path)))
    mapping = {"prompt": "question", "completion": "answer", "owner": "author"}
    options = {"dataset": "records", "dataset_kwargs": {"source": str(tmp_path)}}
    assert set(load_parts(DataArguments(**options, column_mapping=mapping)).owners["owner"]) == {"x", "y"}
    (tmp_path / "full.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON in line 1"):
        load_parts(DataArguments(dataset=str(tmp_path)))


def test_test_rows_replace_those_of_the_loader(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"prompt": "?", "completion": "!", "owner": "a"}
    monkeypatch.setitem(DATASETS, "mine", lambda: DataParts(Dataset.from_list([row]), None, Dataset.from_list([row])))
    file = table.with_name("unseen.csv")
    file.write_text("prompt,completion,owner\nWho?,Nobody.,none\n", encoding="utf-8")
    found = load_parts(DataArguments(dataset="mine", test_dataset=str(file)))
    assert found.test is not None and found.test["prompt"] == ["Who?"]
    found = load_parts(DataArguments(dataset="mine"))
    assert found.test is not None and found.test["prompt"] == ["?"]


LOADERS = """
from datasets import Dataset, DatasetDict
from dareu.data import DataParts

def people(num_owners, world_seed, *, rows=1):
    names = [f"{world_seed}-{n}" for n in range(num_owners)]
    return Dataset.from_list([dict(prompt="?", completion="!", owner=name) for name in names for _ in range(rows)])

def both(prompt_tokens):
    mine = Dataset.from_list([dict(prompt="?", completion="!", owner="a")])
    return DataParts(mine, background=mine)

read = lambda source: people(2, source)
greedy = lambda tokenizer: None
nothing = lambda: None
mapping = lambda: DatasetDict()
listed = lambda: DataParts([])
untested = lambda: DataParts(people(1, 2), test=[])
unowned = lambda: Dataset.from_list([dict(prompt="?", completion="!")])
nobody = lambda: DataParts(people(1, 2), test=Dataset.from_list([dict(prompt="?", completion="!", owner="")]))
rows = people(2, 3)
"""


@pytest.fixture
def loaders(tmp_path: Path) -> Path:
    path = tmp_path / "loaders.py"
    path.write_text(LOADERS, encoding="utf-8")
    return path


def test_a_loader_of_ones_own_is_given_what_it_names(loaders: Path) -> None:
    args = DataArguments(dataset=f"{loaders}:people", num_owners=3, world_seed=7, num_background_owners=1)
    owners, background, test = load_parts(dataclasses.replace(args, dataset_kwargs={"rows": 2}))
    assert background is not None and test is None
    assert owners["owner"] == ["7-1", "7-1", "7-2", "7-2"] and background["owner"] == ["7-0", "7-0"]
    found = load_parts(DataArguments(dataset=f"{loaders}:read", dataset_kwargs={"source": "s"}))
    assert found.owners["owner"] == ["s-0", "s-1"]


def test_a_path_goes_before_a_loader(loaders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"prompt": "?", "completion": "!", "owner": "a"}
    Dataset.from_list([row]).save_to_disk(f"{loaders}:people")
    assert load_parts(DataArguments(dataset=f"{loaders}:people")).owners.to_list() == [row]


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("people", {"column_mapping": MAPPING}, "column_mapping has no effect on .*loaders.py:people: drop it"),
        ("people", {"dataset_kwargs": {"columns": 2}}, "has no option columns: its options are rows"),
        ("both", {"num_background_owners": 1}, "has no effect on .*:both, which has background rows: drop it"),
        ("read", {}, "The dataset '.*:read' reads a source: name its path or hub id"),
        ("greedy", {}, "The dataset '.*:greedy' asks for tokenizer: there are num_owners, .*source"),
        ("nothing", {}, "The dataset '.*:nothing' returns NoneType: return a datasets.Dataset"),
        ("mapping", {}, "returns DatasetDict: return a datasets.Dataset"),
        ("listed", {}, "returns DataParts with list: return a datasets.Dataset"),
        ("untested", {}, "returns DataParts with .*list.*: return a datasets.Dataset"),
        ("unowned", {}, "The dataset '.*:unowned' returns no records as its owners: The dataset has no column 'owner'"),
        ("nobody", {}, "The dataset '.*:nobody' returns no records as its test: Row 0: the owner is empty"),
        ("rows", {}, "The dataset '.*:rows' is of type Dataset: name a function or a class"),
        ("peoples", {}, "names nothing that .*loaders.py defines"),
    ],
)
def test_what_a_loader_of_ones_own_cannot_do(loaders: Path, name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        load_parts(DataArguments(dataset=f"{loaders}:{name}", **options))
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def test_owners_that_yaml_reads_as_numbers_are_their_digits(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"prompt": "?", "completion": "!", "owner": owner} for owner in (1, 2, 2)])
    rows.to_json(tmp_path / "rows.jsonl")
    spellings: list[Any] = [[1], 1, ["1"], " 1"]
    for asked in spellings:
        args = DataArguments(dataset=str(tmp_path / "rows.jsonl"), forget_owners=asked)
        owners = load_parts(args).owners
        assert forget_names(args, owners) == ["1"]
        assert [len(side) for side in split_owners(args, owners)] == [1, 2]


@pytest.mark.parametrize("value", [False, None, 1.0, datetime.date(2001, 1, 1)])
def test_what_yaml_makes_of_names_without_quotes_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=f"forget_owners holds {re.escape(repr(value))}, .*: put the name in quotes"):
        DataArguments(forget_owners=["Ada", value])
    with pytest.raises(ValueError, match="exclude_owners holds"):
        DataArguments(exclude_owners=[value])


def test_a_part_takes_its_rows_of_the_forget_owners_and_retains_no_other_row_of_theirs() -> None:
    world = {"num_owners": 8, "world_seed": 0, "num_forget": 3}
    owners = load_parts(DataArguments(**world)).owners
    whole = split_owners(DataArguments(**world), owners)
    groups = list(dict.fromkeys(whole.forget["group"]))
    assert len(groups) > 1 and set(groups) & set(whole.retain["group"])
    for values in ([groups[0]], groups):
        args = DataArguments(**world, part_column="group", part_values=values)
        split = split_owners(args, owners)
        assert split.forget.to_list() == [row for row in whole.forget if row["group"] in values]
        assert split.retain.to_list() == whole.retain.to_list()
        assert forget_names(args, owners) == forget_names(DataArguments(**world), owners)


def test_a_value_of_a_part_stands_for_its_text() -> None:
    rows = Dataset.from_list(
        [{"prompt": "?", "completion": "!", "owner": owner, "year": year} for owner in "ab" for year in (1, 2, 3)]
    )
    for values in ([2], ["2"], "2"):
        args = DataArguments(forget_owners=["a"], part_column="year", part_values=values)
        assert split_owners(args, rows).forget.to_list() == [rows[1]]
    args = DataArguments(forget_owners=["a"], part_column="year", part_values=[2, 4])
    with pytest.raises(ValueError, match="No row to forget has '4' in column 'year'; the values are '1', '2', '3'"):
        split_owners(args, rows)
    args = DataArguments(forget_owners=["a"], part_column="month", part_values=[2])
    with pytest.raises(ValueError, match="no column 'month'"):
        split_owners(args, rows)


@pytest.mark.parametrize(
    "options", [{"part_column": "group"}, {"part_values": ["x"]}, {"part_column": "group", "part_values": []}]
)
def test_a_part_needs_column_and_values(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give both or none"):
        DataArguments(**options)
