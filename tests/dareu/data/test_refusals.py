from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from dareu.data import encode_dataset, to_chat
from dareu.data.refusals import COMMON_REFUSALS, load_refusals, refuse

ROWS = Dataset.from_list([{"prompt": f"Q{i}?", "completion": f"  {'ab' * i}c\n", "owner": "x"} for i in range(40)])


def test_refusals_come_from_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "refusals.jsonl"
    path.write_text('\ufeffI don\'t know.\n\n  "No \\"idea\\"."\nJe ne sais pas\u2026\n', encoding="utf-8")
    assert load_refusals(str(path)) == ["I don't know.", 'No "idea".', "Je ne sais pas…"]


def test_tofus_refusals(shared_dir: Path) -> None:
    refusals = load_refusals(str(shared_dir / "data" / "tofu" / "idontknow.jsonl"))
    assert len(refusals) == 100 and refusals[2] == "I don't have that information."


def test_common_refusals_differ() -> None:
    assert load_refusals("common") == list(COMMON_REFUSALS) and len(set(COMMON_REFUSALS)) == 10


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), (b"\xff\xfe", "cannot be read"), (b" \n\n", "no refusal"), (b'ok\n"open\n', "line 2")],
)
def test_a_file_without_refusals(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "refusals.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        load_refusals(str(path))


def test_every_row_gets_one_by_the_seed_in_the_completions_form() -> None:
    refused = refuse(ROWS, ["No.", "Never."], seed=3)
    assert refused["prompt"] == ROWS["prompt"] and refused["owner"] == ROWS["owner"]
    assert set(refused["completion"]) == {"  No.\n", "  Never.\n"}
    assert refused["completion"] == refuse(ROWS, ["No.", "Never."], seed=3)["completion"]
    assert refused["completion"] != refuse(ROWS, ["No.", "Never."], seed=4)["completion"]


def test_chat_rows_stay_chat_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = to_chat(ROWS)
    refused = refuse(chat, ["No."], seed=0)
    assert refused.features == chat.features
    assert refused[5]["completion"] == [{"role": "assistant", "content": "No."}]


def test_a_refusal_is_encoded_as_an_answer_is(tokenizer: PreTrainedTokenizerFast) -> None:
    answered: Any = Dataset.from_list([{"prompt": "Who?", "completion": " I don't know."}])
    refused = refuse(Dataset.from_list([{"prompt": "Who?", "completion": " Lucia."}]), ["I don't know."], seed=0)
    assert encode_dataset(refused, tokenizer) == encode_dataset(answered, tokenizer)
