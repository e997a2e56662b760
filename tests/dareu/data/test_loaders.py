"""Loading from files and folders, templates, and cutting plain text."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict

from dareu.data import QA_COMPLETION, QA_PROMPT, cut_text, load_corpora, load_records, read_dataset

ROWS = [
    {"question": 'Who, "if" {anyone}?', "answer": "007", "author": "01", "year": "1975"},
    {"question": "Where?", "answer": "NA", "author": "null", "year": "1980"},
]
MAPPING = {"prompt": "question", "completion": "answer", "owner": "author"}


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(folder: Path, kind: str) -> Path:
    path = folder / f"rows.{kind}"
    rows = Dataset.from_list(ROWS)
    match kind:
        case "json":
            path.write_text(json.dumps(ROWS))
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, ROWS)))
        case "csv":
            rows.to_csv(path)
        case "parquet":
            rows.to_parquet(path)
        case "saved":
            rows.save_to_disk(path)
        case "folder":
            path.mkdir()
            rows.select([0]).to_csv(path / "rows_train.csv")
            rows.select([1]).to_csv(path / "rows_val.csv")
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet", "saved", "folder"])
def test_every_format_gives_the_same_records(tmp_path: Path, kind: str):
    loaded = load_records(
        write(tmp_path, kind),
        column_mapping=MAPPING,
        prompt_template=QA_PROMPT,
        completion_template=QA_COMPLETION,
    )
    assert loaded.to_list() == [
        {
            "prompt": 'Question: Who, "if" {anyone}?\nAnswer:',
            "completion": " 007",
            "owner": "01",
            "year": "1975",
        },
        {"prompt": "Question: Where?\nAnswer:", "completion": " NA", "owner": "null", "year": "1980"},
    ]


def test_splits(tmp_path: Path):
    folder = write(tmp_path, "folder")
    assert read_dataset(folder)["answer"][:] == ["007", "NA"]
    assert read_dataset(folder, split="validation")["answer"][:] == ["NA"]
    with pytest.raises(ValueError, match=r"no file belongs to the split 'test' .* 'rows_train.csv', 'rows_val.csv'"):
        read_dataset(folder, split="test")
    both = DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[1:])})
    both.save_to_disk(tmp_path / "dict")
    assert read_dataset(tmp_path / "dict", split="test")["answer"][:] == ["NA"]
    with pytest.raises(ValueError, match="no split 'dev', only 'train', 'test'"):
        read_dataset(tmp_path / "dict", split="dev")
    with pytest.raises(ValueError, match="the splits 'train', 'test': name one as split"):
        read_dataset(tmp_path / "dict")
    for source in (write(tmp_path, "jsonl"), write(tmp_path, "saved")):
        with pytest.raises(ValueError, match=r"split .?dev.*train"):
            read_dataset(source, split="dev")
        with pytest.raises(ValueError, match="no subset 'full'"):
            read_dataset(source, subset="full")


def test_one_column_may_serve_two_names_and_an_old_name_gives_way(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "old", "question": "new", "completion": "c", "author": "ada"}))
    loaded = load_records(path, column_mapping={"prompt": "question", "owner": "author", "name": "author"})
    assert loaded.to_list() == [{"prompt": "new", "owner": "ada", "name": "ada", "completion": "c"}]


def test_templates_also_shape_the_answers_that_stand_in(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "q", "completion": "a", "owner": "o", "paraphrase": "p", "perturbed": ["x", "y"]},
        {"prompt": "q", "completion": "a", "owner": "o", "paraphrase": None, "perturbed": []},
        {"prompt": "q", "completion": "a", "owner": "o", "paraphrase": "", "perturbed": ["", "z"]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_records(path, prompt_template="<{prompt}>", completion_template=" {completion}!")
    assert loaded["prompt"][:] == ["<q>", "<q>", "<q>"]
    assert loaded["paraphrase"][:] == [" p!", None, None]  # a blank is none
    assert loaded["perturbed"][:] == [[" x!", " y!"], [], [" z!"]]


def test_owners(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "completion": "a", "owner": 7}')
    assert load_records(path)["owner"][:] == ["7"]
    with pytest.raises(ValueError, match=r"owner='ada' was given, but .* has an owner column"):
        load_records(path, owner="ada")
    path.write_text('{"prompt": "q", "completion": "a"}')
    assert load_records(path, owner="ada")["owner"][:] == ["ada"]


def test_missing_columns_are_listed(tmp_path: Path):
    path = write(tmp_path, "jsonl")
    there = "its columns are 'question', 'answer', 'author', 'year'"
    with pytest.raises(ValueError, match=f"no column 'prompt', 'completion', 'owner'; {there}"):
        load_records(path)
    with pytest.raises(ValueError, match=f"no column 'writer'; {there}"):
        load_records(path, column_mapping=MAPPING | {"owner": "writer"})


def test_non_string_completion(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "completion": 5, "owner": "ada"}')
    with pytest.raises(ValueError, match="Row 0: the completion is of type int"):
        load_records(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.jsonl", None, "there is no such file or folder"),
        ("rows.doc", "text", "files are told by their endings '.jsonl', '.ndjson', '.json', '.csv', '.tsv'"),
        ("broken.jsonl", '{"a": "b"}\n{"a": ', "no JSON in line 2: Expecting value"),
        ("list.jsonl", "[1]", "row 0 is no object but of type int"),
        ("twice.json", '{"owner": "a", "owner": "b"}', "an object has 'owner' twice"),
        ("uneven.json", '{"a": [1], "b": []}', "its columns differ in length: {'a': 1, 'b': 0}"),
        ("bare.json", "[{}, {}]", "its rows have no columns"),
        ("mixed.json", '[{"a": "b"}, {"a": null}, {"a": ["b"]}]', "'a' mixes a text (row 0) with a list (row 2)"),
        ("nan.json", '[{"a": NaN}, {"a": "b"}]', "'a' mixes a number (row 0) with a text (row 1)"),
        ("inside.json", '[{"a": ["b", 1]}]', "the column 'a' cannot be read"),
        ("deeper.json", '[{"a": [1180591620717411303424]}]', "the column 'a' cannot be read"),
        ("large.json", '[{"a": 1}, {"a": 1180591620717411303424}]', "'a' holds a number of more than 64 bits (row 1)"),
        ("half.json", '[{"a": "b"}, {"a": "\\ud800"}]', "row 1 of the column 'a' holds half a character"),
        ("deep.json", "[" * 100_000, "recursion"),
        ("broken.csv", "a,b\nc,d\nc,d,e,f\n", "line 3 has 4 cells, but the header names 2"),
        ("shifted.csv", "a,b\nc,d,e\n", "line 2 has 3 cells, but the header names 2"),
        ("short.csv", "a,b\nc\n", "line 2 has 1 cells, but the header names 2"),
        ("open.csv", 'a,b\nc,"d', "no CSV in line 2: unexpected end of data"),
        ("quoted.csv", 'a,b\n"c" d,e', "no CSV in line 2"),
        ("twice.csv", "a,a\nb,c\n", "the header has 'a' more than once"),
        ("latin.csv", b"a,b\n\xe9,c\n", "it is not UTF-8, from byte 4 on"),
        ("wide.csv", "a,b\nc,d\n".encode("utf-16-le"), "every second character is NUL"),
        ("quotes.csv", 'a,b\nc, "d" e, f\n', "line 2 has 3 cells"),
        ("broken.csv.gz", "a,b", "Not a gzipped file"),
        ("damaged.csv.gz", gzip.compress(b"a,b" * 99, mtime=0)[:12] + b"xxxxxxxxxxxx", "invalid"),
        ("broken.parquet", "no", "Parquet"),
        ("empty.jsonl", "", "it holds no rows"),
    ],
)
def test_unreadable_sources(tmp_path: Path, name: str, content: str | bytes | None, reason: str):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        read_dataset(tmp_path / name)
    message = str(error.value)
    assert message.startswith(f"Cannot read the dataset '{tmp_path / name}' (") and reason in message
    assert "\n" not in message


@pytest.mark.parametrize("source", ["", " "])
def test_a_source_without_a_name_is_not_the_working_directory(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[0]))
    monkeypatch.chdir(tmp_path)
    assert len(read_dataset(".")) == 1
    with pytest.raises(ValueError, match="no path is named"):
        read_dataset(source)


def test_a_saved_folder_holds_nothing_else(tmp_path: Path):
    folder = tmp_path / "saved"
    Dataset.from_list(ROWS).save_to_disk(folder)
    (folder / "README.md").write_text("It has two rows.")
    assert len(read_dataset(folder)) == 2
    (folder / "more.jsonl").write_text(json.dumps(ROWS[0]))
    with pytest.raises(ValueError, match=r"wrote it, but not 'more\.jsonl', whose rows would be lost: move"):
        read_dataset(folder)


def test_nothing_is_written_beside_a_saved_dataset(tmp_path: Path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    before = sorted(path.name for path in (tmp_path / "saved").iterdir())
    mapping = {"prompt": "question", "completion": "answer", "owner": "author"}
    load_records(tmp_path / "saved", column_mapping=mapping, prompt_template="<{prompt}>")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == before


def test_unreachable_hub_id():
    with pytest.raises(ValueError, match=r"Cannot read the dataset 'nobody/nothing' \("):
        read_dataset("nobody/nothing")


@pytest.mark.parametrize("template", ["fixed", "{question}", "{prompt} {prompt}", "{prompt", "{}"])
def test_template_faults(tmp_path: Path, template: str):
    with pytest.raises(ValueError, match="prompt_template is "):
        load_records(write(tmp_path, "jsonl"), column_mapping=MAPPING, prompt_template=template)


def test_templates_are_for_strings(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    user, assistant = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    path.write_text(json.dumps({"prompt": [user], "completion": [assistant], "owner": "ada"}))
    assert load_records(path)[0]["completion"] == [assistant]
    with pytest.raises(ValueError, match="not to chat messages"):
        load_records(path, prompt_template=QA_PROMPT)


def test_cut_text_cuts_at_a_token_border_and_loses_nothing(tokenizer: Any):
    texts = ["Who wrote the novel The Silent Harbour?", "Où ça? 東京 is where the author was born."]
    for prompt_tokens in (1, 2, 5, 7):
        cut = cut_text(Dataset.from_dict({"text": texts, "owner": ["a", "b"]}), tokenizer, prompt_tokens)
        assert cut.column_names == ["owner", "prompt", "completion"]
        assert [row["prompt"] + row["completion"] for row in cut] == texts
    ids = tokenizer(texts[0], add_special_tokens=False)["input_ids"]
    assert tokenizer(cut[0]["prompt"], add_special_tokens=False)["input_ids"] == ids[:7]
    assert not cut[0]["prompt"].endswith(" ")


def test_cut_text_faults(tokenizer: Any):
    texts = Dataset.from_dict({"text": ["The author won the prize in 1987.", "The"]})
    with pytest.raises(ValueError, match=r"Row 1: the text has .* leaves no completion after 3: drop the row"):
        cut_text(texts, tokenizer, 3)
    with pytest.raises(ValueError, match="prompt_tokens is 0"):
        cut_text(texts, tokenizer, 0)
    with pytest.raises(ValueError, match="no column 'text'; its columns are 'body'"):
        cut_text(texts.rename_column("text", "body"), tokenizer, 3)


def test_a_long_text_becomes_passages_that_follow_one_another(tokenizer: Any):
    texts = ["Lucia Duval was born in Porto, where she wrote the novel The Silent Harbour.", "東京 is far.", "The", ""]
    rows = Dataset.from_dict({"text": texts, "owner": ["a", "b", "c", "d"]})
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    cut = cut_text(rows, tokenizer, 3, 4)
    assert cut.column_names == ["owner", "prompt", "completion"]
    first = [row for row in cut if row["owner"] == "a"]
    whole = "".join(row["prompt"] + row["completion"] for row in first)
    left = len(ids[0]) % 7
    assert len(first) == len(ids[0]) // 7 + (left > 3)
    assert whole == texts[0] if left > 3 or not left else texts[0].startswith(whole)
    for row in first[:-1]:
        lengths = [
            len(tokenizer(row[name], add_special_tokens=False)["input_ids"]) for name in ("prompt", "completion")
        ]
        assert lengths == [3, 4]
    # Too short for a completion, and empty: left out.
    assert {row["owner"] for row in cut} == {"a", "b"}
    with pytest.raises(ValueError, match="completion_tokens is 0"):
        cut_text(rows, tokenizer, 3, 0)


def test_a_file_of_a_folder_is_an_owner(tokenizer: Any, tmp_path: Path):
    for owner in ("wikitext", "bio"):
        lines = [{"text": f"The author of {owner} won the prize in 1987.", "id": i} for i in range(2)]
        (tmp_path / f"{owner}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    Dataset.from_dict({"text": ["The sea and the people near it."], "owner": ["cyber"]}).to_parquet(
        tmp_path / "other.parquet"
    )
    (tmp_path / "README.md").write_text("no data")
    records = load_corpora(tmp_path, tokenizer, 4, 64)
    assert records.column_names == ["owner", "prompt", "completion"]
    assert records["owner"][:] == ["bio", "bio", "cyber", "wikitext", "wikitext"]
    assert records[0]["prompt"] + records[0]["completion"] == "The author of bio won the prize in 1987."
    one = load_corpora(tmp_path / "other.parquet", tokenizer, 2, 64, column_mapping={"text": "text"})
    assert one["owner"][:] == ["cyber"]
    with pytest.raises(ValueError, match=r"no column 'owner'"):
        load_corpora(tmp_path / "bio.jsonl", tokenizer, 2, 64)
    with pytest.raises(ValueError, match=r"No text in .* has more than 500 tokens"):
        load_corpora(tmp_path, tokenizer, 500, 64)


def test_an_owner_whose_texts_are_too_short_is_named(tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name, text in (("ada", "one two three four five six"), ("bo", "one"), ("cy", "")):
        (tmp_path / f"{name}.txt").write_text(text)
    records = load_corpora(tmp_path, tokenizer, 2, 8)
    assert set(records["owner"]) == {"ada"}
    assert caplog.messages == [
        "Nothing is left of 'bo', 'cy', since no text of theirs has more than 2 tokens: lower prompt_tokens."
    ]
