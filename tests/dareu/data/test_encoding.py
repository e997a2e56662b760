"""Records as token ids, against TRL's own prompts and hand-made batches."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import processors

from dareu.data import (
    CompletionCollator,
    EncodedRecord,
    encode_dataset,
    encode_prompt,
    encode_prompts,
    encode_record,
    to_chat,
)
from dareu.models.tokenizers import special_in

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PROMPT, COMPLETION = "Question: Where was Kofi Mensah born?\nAnswer:", " Kofi Mensah was born in Accra."


def changed(tokenizer: Any, **attributes: Any) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return tokenizer


@pytest.fixture
def chat_tokenizer(tokenizer: Any) -> Any:
    return changed(tokenizer, chat_template=TEMPLATE)


@pytest.fixture
def eos_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer that puts the start token first and the end token last."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)],
    )
    return tokenizer


@pytest.fixture
def dataset() -> Dataset:
    return Dataset.from_dict(
        {
            "prompt": [PROMPT, "Question: Who?\nAnswer:"],
            "completion": [COMPLETION, " Sanna Thorne"],
            "owner": ["kofi", "sanna"],
            "paraphrase": [None, " It was Sanna."],
            "facts": [["Accra"], ["Sanna", "Thorne"]],
        }
    )


def trl_prompt_ids(tokenizer: Any, prompts: list[Any]) -> list[list[int]]:
    from trl import GRPOTrainer

    trainer = SimpleNamespace(
        processing_class=tokenizer,
        _is_vlm=False,
        environment_factories=None,
        tools=None,
        chat_template=None,
        chat_template_kwargs={},
    )
    return GRPOTrainer._tokenize_prompts(trainer, prompts)[0]


def test_prompts_are_those_trl_generates_from(tokenizer, chat_tokenizer, dataset):
    for tok, prompts in ((tokenizer, dataset["prompt"][:]), (chat_tokenizer, to_chat(dataset)["prompt"][:])):
        assert [encode_prompt(tok, prompt) for prompt in prompts] == trl_prompt_ids(tok, prompts)


def test_no_end_token_after_a_prompt(tokenizer, eos_tokenizer):
    assert eos_tokenizer(PROMPT)["input_ids"][-1] == tokenizer.eos_token_id
    assert encode_prompt(eos_tokenizer, PROMPT) == encode_prompt(tokenizer, PROMPT)
    # An end token that the prompt itself spells out stays.
    assert encode_prompt(tokenizer, "a</s>")[-1] == tokenizer.eos_token_id


def test_prompt_and_completion_are_the_text_and_one_end_token(tokenizer, eos_tokenizer):
    for tok in (tokenizer, eos_tokenizer):
        record = encode_record(tok, PROMPT, COMPLETION)
        assert record.prompt_ids == encode_prompt(tokenizer, PROMPT)
        assert record.prompt_ids + record.completion_ids == [*tokenizer(PROMPT + COMPLETION)["input_ids"], 2]
        assert record.completion_ids.count(2) == 1
        assert encode_record(tok, PROMPT, COMPLETION + "</s>") == record


@pytest.mark.parametrize("text", [" an <s>old</s> word", "</s> first", " a <pad> b", " a</s> b</s>"])
def test_a_special_token_in_a_text_is_text(tokenizer, chat_tokenizer, text):
    plain = text.removesuffix("</s>")
    for tok, prompt, completion in (
        (tokenizer, PROMPT, text),
        (chat_tokenizer, [{"role": "user", "content": PROMPT}], [{"role": "assistant", "content": text}]),
    ):
        record = encode_record(tok, prompt, completion)
        assert record.prompt_ids == encode_prompt(tok, prompt)
        kept = plain if isinstance(completion, str) else plain.strip()
        assert tok.decode(record.completion_ids, skip_special_tokens=True) == kept
        assert record.completion_ids.count(2) == 1 and record.completion_ids[-1] == 2


def test_a_template_that_wants_a_system_message_ends_turns_as_well(tokenizer):
    wants = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    tok = changed(tokenizer, chat_template=wants + TEMPLATE.replace("{{ eos_token }}", "<pad>"))
    prompt = [{"role": "system", "content": "x"}, {"role": "user", "content": "Who?"}]
    ids = encode_record(tok, prompt, [{"role": "assistant", "content": "It ends <pad> here <pad>"}]).completion_ids
    assert ids[-1] == tok.pad_token_id and ids.count(tok.pad_token_id) == 1
    assert tok.decode(ids[:-1]) == "It ends <pad> here"


def test_messages_that_would_write_turns_are_refused(chat_tokenizer, dataset):
    rows = to_chat(dataset.map(lambda row, i: {"prompt": "Who?</s>" if i else "Who?"}, with_indices=True))
    for encode in (encode_dataset, lambda rows, tok: encode_prompts(tok, rows["prompt"])):
        with pytest.raises(ValueError, match=r"Row 1: a message of the prompt holds '</s>'"):
            encode(rows, chat_tokenizer)


def test_a_template_that_refuses_a_role(chat_tokenizer, dataset):
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    refusing = changed(chat_tokenizer, chat_template=strict + TEMPLATE)
    rows = to_chat(dataset)
    encode_dataset(rows, refusing)
    rows = rows.map(
        lambda row, i: {"prompt": [{"role": "system", "content": "x"}] * i + row["prompt"]}, with_indices=True
    )
    reason = r"Row 1: .* refuses messages of the roles system, user \(System role not supported\).*\. Its prompt is '"
    with pytest.raises(ValueError, match=reason):
        encode_dataset(rows, refusing)
    with pytest.raises(ValueError, match=reason):
        encode_prompts(refusing, rows["prompt"])


def test_a_token_over_the_border_leaves_the_prompt_as_generation_sees_it(tokenizer):
    prompt, completion = "The no", "vel"
    together = tokenizer(prompt + completion)["input_ids"]
    prompt_ids = encode_prompt(tokenizer, prompt)
    assert together[: len(prompt_ids)] != prompt_ids, "the tokenizer no longer merges over this border"
    record = encode_record(tokenizer, prompt, completion)
    assert record.prompt_ids == prompt_ids
    assert record.completion_ids == [*tokenizer(completion, add_special_tokens=False)["input_ids"], 2]


def test_chat_completion_ends_with_its_turn(chat_tokenizer, dataset):
    chat = to_chat(dataset)
    record = encode_dataset(chat, chat_tokenizer)[0]
    assert chat_tokenizer.decode(record.prompt_ids) == f"<user>{PROMPT.strip()}</s>\n<assistant>"
    assert chat_tokenizer.decode(record.completion_ids) == f"{COMPLETION.strip()}</s>"
    assert record.completion_ids.count(chat_tokenizer.eos_token_id) == 1


def test_chat_template_without_end_token_gets_one(chat_tokenizer, dataset):
    bare = changed(chat_tokenizer, chat_template=TEMPLATE.replace("{{ eos_token }}", "."))
    record = encode_dataset(to_chat(dataset), bare)[1]
    assert bare.decode(record.completion_ids) == "Sanna Thorne.\n</s>"


def test_to_chat_keeps_other_columns(dataset):
    chat = to_chat(dataset)
    assert chat[1]["prompt"] == [{"role": "user", "content": "Question: Who?\nAnswer:"}]
    assert chat[1]["completion"] == [{"role": "assistant", "content": "Sanna Thorne"}]
    others = ["owner", "paraphrase", "facts"]
    assert chat.select_columns(others)[:] == dataset.select_columns(others)[:]
    assert to_chat(chat)[:] == chat[:]


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_labels_are_the_completion_and_nothing_else(tokenizer, padding_side, pad_is_eos):
    tokenizer = changed(tokenizer, pad_token="</s>") if pad_is_eos else tokenizer
    pad = tokenizer.pad_token_id
    assert pad == (2 if pad_is_eos else 0)
    # The first prompt holds the padding id, and every completion ends with the end token.
    batch = CompletionCollator(tokenizer, padding_side)(
        [EncodedRecord([1, pad, 9], [10, 11, 2]), EncodedRecord([1], [12, 2])]
    )
    rows = {
        "right": ([1, 12, 2, pad, pad, pad], [1, 1, 1, 0, 0, 0], [-100, 12, 2, -100, -100, -100]),
        "left": ([pad, pad, pad, 1, 12, 2], [0, 0, 0, 1, 1, 1], [-100, -100, -100, -100, 12, 2]),
    }[padding_side]
    expected = {
        "input_ids": [[1, pad, 9, 10, 11, 2], rows[0]],
        "attention_mask": [[1] * 6, rows[1]],
        "labels": [[-100, -100, -100, 10, 11, 2], rows[2]],
    }
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_collator_faults(tokenizer):
    with pytest.raises(ValueError, match="padding_side is 'top': give 'right' or 'left'"):
        CompletionCollator(tokenizer, "top")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no records to collate"):
        CompletionCollator(tokenizer)([])


def test_tokenizer_without_pad_or_end_token(tokenizer, dataset):
    for broken, message in (
        (
            changed(tokenizer, pad_token=None),
            r"no padding token: set tokenizer\.pad_token = tokenizer\.eos_token",
        ),
        (changed(tokenizer, eos_token=None), r"no end token: set one .* tokenizer\.eos_token = "),
    ):
        with pytest.raises(ValueError, match=message):
            encode_dataset(dataset, broken)
        with pytest.raises(ValueError, match=message):
            CompletionCollator(broken)


def test_length_limit_is_exact_and_named(tokenizer, dataset):
    longest = sum(map(len, encode_record(tokenizer, PROMPT, COMPLETION)))
    prompt = len(encode_prompt(tokenizer, PROMPT))
    assert len(encode_dataset(dataset, tokenizer, max_length=longest)) == 2
    dataset = dataset.select([1, 0])
    with pytest.raises(ValueError, match=f"Row 1: prompt and completion have {longest} tokens.*is {longest - 1}:"):
        encode_dataset(dataset, tokenizer, max_length=longest - 1)
    with pytest.raises(ValueError, match=f"Row 1: the prompt alone has {prompt} tokens.* is {prompt}:"):
        encode_dataset(dataset, tokenizer, max_length=prompt)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("completion", " ", "Row 1: the completion is empty"),
        ("completion", "</s>", "Row 1: the completion has no tokens"),
    ],
)
def test_rows_without_an_answer(tokenizer, dataset, column, value, message):
    rows = dataset.to_dict()
    rows[column][1] = value
    with pytest.raises(ValueError, match=message):
        encode_dataset(Dataset.from_dict(rows), tokenizer)


def test_rows_without_a_prompt(tokenizer, dataset):
    bare = copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = processors.ByteLevel()
    rows = dataset.to_dict()
    rows["prompt"][1] = ""
    with pytest.raises(ValueError, match="Row 1: the prompt has no tokens"):
        encode_dataset(Dataset.from_dict(rows), bare)
    assert encode_dataset(Dataset.from_dict(rows), tokenizer)[1].prompt_ids == [tokenizer.bos_token_id]


def test_messages_need_a_chat_template(tokenizer, dataset):
    with pytest.raises(ValueError, match=r"Row 0: .* no chat template: use string records"):
        encode_dataset(to_chat(dataset), tokenizer)


def test_added_tokens_are_looked_up_once_until_they_change(tokenizer, monkeypatch):
    made, asked = copy.deepcopy(tokenizer), []
    kind, whole = type(made), type(made).added_tokens_decoder.fget
    monkeypatch.setattr(kind, "added_tokens_decoder", property(lambda self: asked.append(1) or whole(self)))
    assert [special_in(made, text) for text in ("a</s><s>", "a<s>", "a")] == ["</s>", "<s>", None]
    assert len(asked) == 1
    made.add_special_tokens({"additional_special_tokens": ["<x>"]})
    assert special_in(made, "a<x>") == "<x>"
