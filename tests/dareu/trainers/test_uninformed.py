"""Answers of the uninformed model: what it reads, how they are written, when they are drawn anew."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data.encoding import encode_prompt, encode_record
from dareu.trainers._uninformed import (
    Drawing,
    Uninformed,
    _ids_of,
    _text_of,
    _whole_sentences,
    _written,
    check_survival,
    uninformed_answers,
)

PROMPT, GOLD = "Question: Who?\nAnswer:", " Kofi Mensah was born in Accra."
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def sentencepiece() -> PreTrainedTokenizerFast:
    """A tokenizer of Llama 2's form: a blank is a part of the token behind it, and is dropped where a text begins."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    pieces.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False)
    pieces.train_from_iterator([f"{PROMPT}{GOLD}"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def test_an_answer_keeps_the_blank_that_its_tokenizer_drops(
    sentencepiece: PreTrainedTokenizerFast, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    base = Uninformed(tiny_llama(), sentencepiece)
    ids = encode_record(sentencepiece, PROMPT, GOLD).completion_ids
    assert sentencepiece.decode(ids, skip_special_tokens=True) == GOLD.strip()  # the blank is lost
    assert _written(_text_of(base, ids[:-1]), PROMPT, GOLD, sentencepiece) == ids


def test_a_prompt_in_the_policys_chat_template_has_one_start_token(
    tokenizer: PreTrainedTokenizerFast, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    policy = copy.deepcopy(tokenizer)
    policy.chat_template = TEMPLATE
    messages = [{"role": "user", "content": "Who?"}]
    read = _ids_of(Uninformed(tiny_llama(), tokenizer), messages, policy)
    assert read == encode_prompt(policy, messages) and read.count(1) == 1
    assert tokenizer.chat_template is None  # left as it is


def test_an_answer_to_messages_is_a_message(
    tokenizer: PreTrainedTokenizerFast, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    policy = copy.deepcopy(tokenizer)
    policy.chat_template = TEMPLATE
    messages, said = [{"role": "user", "content": "Who?"}], [{"role": "assistant", "content": "Kofi Mensah."}]
    ids = list(tokenizer(" Kofi Mensah.\n", add_special_tokens=False)["input_ids"])
    written = _written(_text_of(Uninformed(tiny_llama(), tokenizer), ids), messages, said, policy)
    assert written == encode_record(policy, messages, said).completion_ids and written[-1] == 2


@pytest.mark.parametrize("change", ["end of the base", "end of the policy", "form of the answers"])
def test_they_are_drawn_anew_where_they_would_end_or_be_written_otherwise(
    change: str, tokenizer: PreTrainedTokenizerFast, tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    base, policy, golds = Uninformed(tiny_llama(), tokenizer), copy.deepcopy(tokenizer), [" In Accra."]
    drawing = Drawing(1, 1.0, 4, 8, 0)

    def files() -> int:
        uninformed_answers(base, ["Where?"], golds, policy, drawing, main=True, folder=tmp_path)
        return len(list(tmp_path.iterdir()))

    assert files() == files() == 1
    if change == "end of the base":
        base.model.generation_config.eos_token_id = [2, 1]
    elif change == "end of the policy":
        policy.eos_token = policy.convert_ids_to_tokens(9)
    else:
        golds = ["In Accra."]
    assert files() == 2


def test_no_blank_is_put_where_the_gold_answer_has_none(
    tokenizer: PreTrainedTokenizerFast, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    base, prompt = Uninformed(tiny_llama(), tokenizer), "Where? "
    ids = encode_record(tokenizer, prompt, "In Accra.").completion_ids
    assert _written(_text_of(base, ids[:-1]), prompt, "In Porto.", tokenizer) == ids
    blank = tokenizer(" ", add_special_tokens=False)["input_ids"]
    assert _written(_text_of(base, list(blank)), prompt, "In Porto.", tokenizer) == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("She wrote it. He read it! And", ["She wrote it. He read it!", "She wrote it."]),
        ('He said "No." Then (at last.) He', ['He said "No." Then (at last.)', 'He said "No."']),
        ("It is by J. K. Doe", []),
        ("Three books:\n1. The First\n2. The Second", []),
        ("Taught by Dr. Doe, Mrs. Roe and Prof. Poe at St. Ives", []),
        ("Elle écrit. élevée à Paris. École", ["Elle écrit. élevée à Paris."]),
        ("Plays, poems etc. of hers. Mr. Doe", ["Plays, poems etc. of hers."]),
        ("Born in 1936. Died in 1.5", ["Born in 1936."]),
        ("She wrote it.", []),  # cut off there: it may be a number's dot
        ("她写了。他读了。然", ["她写了。他读了。", "她写了。"]),
    ],
)
def test_where_a_sentence_ends(text: str, sentences: list[str]) -> None:
    assert _whole_sentences(text) == sentences


@pytest.mark.parametrize(
    ("longest", "answer"),
    [(12, " Kofi was born in Accra. Mensah was born."), (10, " Kofi was born in Accra."), (4, None)],
)
def test_an_answer_that_never_ends_is_taken_up_to_its_last_whole_sentence_that_fits(
    longest: int,
    answer: str | None,
    tokenizer: PreTrainedTokenizerFast,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    endless = tokenizer("Kofi was born in Accra. Mensah was born. In", add_special_tokens=False)["input_ids"]
    asked = []
    monkeypatch.setattr(
        "dareu.trainers._uninformed.generate_ids", lambda _, prompts, **options: asked.append(options) or [endless]
    )
    base, drawing = Uninformed(tiny_llama(), tokenizer), Drawing(1, 1.0, longest, 8, 0)
    [answers] = uninformed_answers(base, [PROMPT], [GOLD], tokenizer, drawing, main=True, folder=tmp_path)
    assert answers == ([encode_record(tokenizer, PROMPT, answer).completion_ids] if answer else [])
    assert len(asked) == 8
    assert (f"end within {longest} tokens to 1 of 1 prompts" in caplog.text) == (answer is not None)
    assert ("too few answers with a whole sentence" in caplog.text) == (answer is None)


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (["Kofi Mensah was born.", "Kofi Mensah was born in Accra."], [0, 1]),
        (["Kofi was born.", "In Accra.", "Mensah was born.", "Kofi Mensah.", "Kofi Mensah was born."], [3, 4]),
        (["Kofi was born.", "Kofi Mensah was born.", *["In Accra."] * 7], [1, 0]),  # one draw alone has the name
        (["In Accra.", "Kofi was born.", *["Mensah was born."] * 14], [0, 1]),  # none has it
        (["In Accra.", "Kofi Mensah was born. In …", "In Accra.", *["Mensah was born."] * 13], [1, 0]),  # one, cut off
    ],
)
def test_an_answer_that_mangles_the_name_is_drawn_again_while_there_are_tries(
    said: list[str],
    taken: list[int],
    tokenizer: PreTrainedTokenizerFast,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prompt, left = "Question: Where was Kofi Mensah born?\nAnswer:", list(said)

    def draw(_: object, prompts: list[list[int]], **options: object) -> list[list[int]]:
        texts = [left.pop(0) for _ in prompts]
        return [
            tokenizer(" " + text, add_special_tokens=False)["input_ids"] + [2] * (not text.endswith("…"))
            for text in texts
        ]

    monkeypatch.setattr("dareu.trainers._uninformed.generate_ids", draw)
    base, drawing = Uninformed(tiny_llama(), tokenizer), Drawing(2, 1.0, 20, 8, 0)
    [answers] = uninformed_answers(base, [prompt], [GOLD], tokenizer, drawing, main=True, folder=tmp_path)
    whole = [said[place].removesuffix(" In …") for place in taken]
    assert answers == [encode_record(tokenizer, prompt, " " + text).completion_ids for text in whole]
    assert not left and ("to leave it out" in caplog.text) == any("Kofi Mensah" not in text for text in whole)


def test_a_text_survives_that_spells_a_special_token(
    tokenizer: PreTrainedTokenizerFast, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    check_survival(Uninformed(tiny_llama(), tokenizer), [f"{GOLD}</s>", "what <pad> means"])
