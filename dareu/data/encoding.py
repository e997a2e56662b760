"""Records as token ids: prompts as TRL generates from them, completions with their end, padded batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import torch

from dareu.data.records import check_texts, text_of
from dareu.models.forward import IGNORED_LABEL
from dareu.models.tokenizers import (
    chat_ids,
    check_tokenizer,
    mark_in,
    special_in,
    template_end,
    without_end,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Text: TypeAlias = str | list[dict[str, Any]]

#: Most characters of a prompt in a message.
_SHOWN = 60


class EncodedRecord(NamedTuple):
    """Token ids of one record; `completion_ids` ends with an end token and holds it nowhere else.

    It is the tokenizer's end token, or the one with which the chat template ends the assistant's turn.
    """

    prompt_ids: list[int]
    completion_ids: list[int]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Text) -> list[int]:
    """The ids of a prompt, equal to those that TRL's `GRPOTrainer` generates from.

    Strings take the tokenizer's own special tokens, but no end token, after which nothing could follow;
    messages go through the chat template, up to the opening of the assistant's turn.

    Raises:
        ValueError: The prompt is a message list and the tokenizer has no chat template, or one that refuses it.
    """
    if isinstance(prompt, str):
        return _encode_string(tokenizer, prompt)
    return _encode_chat(tokenizer, prompt, add_generation_prompt=True)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Text], rows: Iterable[int] | None = None
) -> list[list[int]]:
    """`encode_prompt` of every row, or of some.

    Args:
        tokenizer: See there.
        prompts: Of all rows.
        rows: Which rows; default: all.

    Raises:
        ValueError: As there, or a message holds a special token; with the row.
    """
    encoded = []
    for row in range(len(prompts)) if rows is None else rows:
        try:
            _check_contents(tokenizer, prompts[row])
            encoded.append(encode_prompt(tokenizer, prompts[row]))
        except ValueError as error:
            raise _of_row(row, prompts[row], error) from error
    return encoded


def encode_record(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text, prompt_ids: list[int] | None = None
) -> EncodedRecord:
    """The ids of a prompt and of the completion that follows it.

    The completion's ids are what follows the prompt's ids in prompt and completion tokenised together. Where
    the prompt's ids do not open those (a token spans the border), the completion is tokenised alone, so that
    the model is trained on the very prompt ids it will generate from. The completion ends with the tokenizer's end
    token (of a chat record: the template's), whether or not its text does; a special token that the text spells
    before its end is text like any other, and cuts nothing.

    Args:
        tokenizer: Needs an end token, and a chat template for message lists.
        prompt: A string, or messages.
        completion: Of the same form as `prompt`: a string, or one assistant message.
        prompt_ids: What `encode_prompt` gave of the prompt, where it is known already.

    Raises:
        ValueError: The prompt or the completion has no tokens, or the tokenizer lacks what it needs.
    """
    check_tokenizer(tokenizer)
    prompt_ids = encode_prompt(tokenizer, prompt) if prompt_ids is None else prompt_ids
    if not prompt_ids:
        raise ValueError("the prompt has no tokens: give it a text, or a tokenizer that adds a start token.")
    end: int = tokenizer.eos_token_id
    if isinstance(prompt, str) and isinstance(completion, str):
        text = without_end(tokenizer, completion, end)
        spells_special = special_in(tokenizer, text) is not None
        whole_ids = [] if spells_special else _encode_string(tokenizer, prompt + text)
    else:
        assert not isinstance(prompt, str) and not isinstance(completion, str), "mixed strings and messages"
        end = template_end(tokenizer)
        content = without_end(tokenizer, completion[0]["content"], end)
        spells_special = special_in(tokenizer, content) is not None
        messages = [*prompt, {**completion[0], "content": content}]
        whole_ids, text = [] if spells_special else _encode_chat(tokenizer, messages), content.strip()
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        completion_ids = whole_ids[len(prompt_ids) :]
    else:
        encoded: Any = tokenizer(text, add_special_tokens=False, split_special_tokens=spells_special)
        completion_ids = list(encoded["input_ids"])
    if end in completion_ids:
        # Generation stops at the first end token; chat templates put whitespace behind it.
        completion_ids = completion_ids[: completion_ids.index(end)]
    if not completion_ids:
        raise ValueError("the completion has no tokens: fill it in or drop the row.")
    return EncodedRecord(prompt_ids, [*completion_ids, end])


def in_form_of(gold: Text, answer: str) -> Text:
    """The answer in the gold one's form: one message, or a string that opens with the same space."""
    if not isinstance(gold, str):
        return [{"role": "assistant", "content": answer}]
    return gold[: len(gold) - len(gold.lstrip())] + answer


def encode_dataset(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None
) -> list[EncodedRecord]:
    """Encodes every row of a dataset with `prompt` and `completion` columns (an `owner` is not needed).

    Args:
        dataset: The records, strings or chat messages.
        tokenizer: Needs an end token and a padding token.
        max_length: Most tokens a row may have, end token included; None for no limit. Nothing is ever cut.

    Raises:
        ValueError: Names the row that cannot be encoded or is too long; see `check_texts`, `encode_record`.
    """
    check_tokenizer(tokenizer)
    check_texts(dataset)
    records = []
    for row, (prompt, completion) in enumerate(zip(dataset["prompt"], dataset["completion"], strict=True)):
        try:
            _check_contents(tokenizer, prompt)
            _check_marks(tokenizer, completion)
            record = encode_record(tokenizer, prompt, completion)
            if max_length is not None:
                _check_length(record, max_length)
        except ValueError as error:
            raise _of_row(row, prompt, error) from error
        records.append(record)
    return records


@dataclass(frozen=True)
class CompletionCollator:
    """Pads encoded records into a batch whose loss falls on completion tokens only.

    Padding is told by length, never by id: the end token of a row keeps its label even where the tokenizer
    pads with its end token.

    Attributes:
        tokenizer: Gives the padding id.
        padding_side: "right" for training, "left" for generation.
    """

    tokenizer: PreTrainedTokenizerBase
    padding_side: Literal["right", "left"] = "right"

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer)
        if self.padding_side not in ("right", "left"):
            raise ValueError(f"padding_side is {self.padding_side!r}: give 'right' or 'left'.")

    def __call__(self, records: Sequence[EncodedRecord]) -> dict[str, torch.Tensor]:
        """Pads a non-empty list of B records to the longest of them, T tokens.

        Returns:
            `input_ids`, `attention_mask` (1 on real tokens) and `labels` (-100 except on completion tokens),
            each int64 of shape (B, T).
        """
        if not records:
            raise ValueError("There are no records to collate: give at least one.")
        shape = (len(records), max(len(r.prompt_ids) + len(r.completion_ids) for r in records))
        batch = {
            "input_ids": torch.full(shape, self.tokenizer.pad_token_id, dtype=torch.int64),
            "attention_mask": torch.zeros(shape, dtype=torch.int64),
            "labels": torch.full(shape, IGNORED_LABEL, dtype=torch.int64),
        }
        for row, (prompt_ids, completion_ids) in enumerate(records):
            length = len(prompt_ids) + len(completion_ids)
            end = length if self.padding_side == "right" else shape[1]
            batch["input_ids"][row, end - length : end] = torch.tensor(prompt_ids + completion_ids)
            batch["attention_mask"][row, end - length : end] = 1
            batch["labels"][row, end - len(completion_ids) : end] = torch.tensor(completion_ids)
        return batch


def to_chat(dataset: Dataset) -> Dataset:
    """Turns string records into user and assistant messages, for tokenizers with a chat template.

    Surrounding whitespace goes (the template sets its own); other columns are kept; chat records stay as
    they are.

    Raises:
        ValueError: See `check_texts`.
    """
    from datasets import List, Value

    check_texts(dataset)
    if len(dataset) == 0 or not isinstance(dataset[0]["prompt"], str):
        return dataset
    # Stated rather than inferred: a column that opens with many empty rows would be inferred as empty.
    messages = List({"role": Value("string"), "content": Value("string")})
    features = dataset.features.copy()
    features["prompt"] = features["completion"] = messages

    def convert(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
        return {
            "prompt": [{"role": "user", "content": row["prompt"].strip()}],
            "completion": [{"role": "assistant", "content": row["completion"].strip()}],
        }

    return dataset.map(convert, features=features)


def _encode_string(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids = list(tokenizer(text)["input_ids"])
    if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and not text.endswith(str(tokenizer.eos_token)):
        ids.pop()
    return ids


def _encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], *, add_generation_prompt: bool = False
) -> list[int]:
    if tokenizer.chat_template is None:
        raise ValueError(
            "the record is a list of chat messages, but the tokenizer has no chat template: "
            "use string records, or set tokenizer.chat_template."
        )
    return chat_ids(tokenizer, messages, add_generation_prompt=add_generation_prompt)


def _check_contents(tokenizer: PreTrainedTokenizerBase, prompt: Text) -> None:
    """Refuses messages that would write a turn of their own; a string may well be written in a model's own form."""
    parts = [] if isinstance(prompt, str) else [message[part] for message in prompt for part in ("role", "content")]
    for text in parts:
        if (token := special_in(tokenizer, text) or mark_in(tokenizer, text)) is not None:
            raise ValueError(
                f"a message of the prompt holds {token!r}, which the tokenizer takes for a special token: write it "
                "otherwise, or drop the row."
            )


def _check_marks(tokenizer: PreTrainedTokenizerBase, completion: Text) -> None:
    """Refuses a text with a mark of turns within that would be read as one; a model's own answers may hold any."""
    text = text_of(completion)
    if mark_in(tokenizer, text) is None:  # as most: the end is then not asked for
        return
    end = tokenizer.eos_token_id if isinstance(completion, str) else template_end(tokenizer)
    if (mark := mark_in(tokenizer, without_end(tokenizer, text, end))) is not None:
        raise ValueError(
            f"the completion holds {mark!r}, with which turns begin or end, and the tokenizer reads it so wherever it "
            "stands: write it otherwise, or drop the row."
        )


def _of_row(row: int, prompt: Text, error: ValueError) -> ValueError:
    """The fault with its row, which counts what is left after a split, and with what that row asks."""
    asked = text_of(prompt)
    begin = asked if len(asked) <= _SHOWN else f"{asked[:_SHOWN]}…"
    return ValueError(f"Row {row}: {str(error).rstrip('.')}. Its prompt is {begin!r}.")


def _check_length(record: EncodedRecord, max_length: int) -> None:
    prompt, total = len(record.prompt_ids), len(record.prompt_ids) + len(record.completion_ids)
    if prompt >= max_length:
        raise ValueError(
            f"the prompt alone has {prompt} tokens, but the limit for prompt and completion is "
            f"{max_length}: shorten it, or drop the row."
        )
    if total > max_length:
        raise ValueError(
            f"prompt and completion have {total} tokens, but the limit is {max_length}: shorten them, or drop the row."
        )
