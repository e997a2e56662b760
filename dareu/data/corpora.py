"""Records from plain texts, which are cut into prompts and completions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.data._owners import named_owners, tidy_owners
from dareu.data._tables import bare_name
from dareu.data.loaders import files_in, map_columns, read_dataset
from dareu.data.records import check_columns, check_records, quoted
from dareu.models import load_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def text_rows(
    source: str,
    column_mapping: Mapping[str, str] | None,
    prompt_tokens: int | None,
    completion_tokens: int,
    text_tokenizer: str | None,
) -> Dataset:
    """The dataset `texts`: see `load_corpora`.

    Args:
        source: See `load_corpora`.
        column_mapping: See `load_corpora`.
        prompt_tokens: See `cut_text`.
        completion_tokens: See `cut_text`.
        text_tokenizer: A model folder or hub id, whose tokens are counted.

    Raises:
        ValueError: `prompt_tokens` or `text_tokenizer` is missing, or as `load_corpora` says.
    """
    if prompt_tokens is None:
        raise ValueError("Plain texts are cut into passages: give prompt_tokens, the tokens of each prompt.")
    if text_tokenizer is None:
        raise ValueError("prompt_tokens needs text_tokenizer, the model whose tokens are counted.")
    tokenizer = load_tokenizer(text_tokenizer)
    return load_corpora(source, tokenizer, prompt_tokens, completion_tokens, column_mapping=column_mapping)


def load_corpora(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    prompt_tokens: int,
    completion_tokens: int,
    *,
    column_mapping: Mapping[str, str] | None = None,
) -> Dataset:
    """Loads plain texts as records: every text in passages of a prompt and a completion.

    Args:
        source: As in `read_dataset`, with columns `text` and `owner`. In a folder of files, rows of a file without
            an owner column belong to an owner of the file's name: `wmdp/bio.jsonl` holds the texts of "bio", and
            `arxiv/ada/2001.txt` one of "ada/2001".
        tokenizer: See `cut_text`.
        prompt_tokens: See `cut_text`.
        completion_tokens: See `cut_text`.
        column_mapping: Name in the records -> name in the data; see `load_records`.

    Returns:
        `prompt`, `completion` and `owner` of every passage, texts in their order, files in that of their names.

    Raises:
        ValueError: The source cannot be read or lacks a column, or no text is long enough for a passage.
    """
    from datasets import concatenate_datasets

    files = files_in(source)
    names = [bare_name(file.relative_to(source)) for file in files]
    if same := sorted({name for name in names if names.count(name) > 1}):
        logger.warning("Several files are called %s, and are taken for one owner's each.", quoted(same))
    parts = []
    for file in files or [Path(source)]:
        part = map_columns(read_dataset(file), column_mapping or {})
        if files and "owner" not in part.column_names:
            part = part.add_column("owner", [bare_name(file.relative_to(source))] * len(part))
        check_columns(part, ("text", "owner"))
        parts.append(named_owners(part.select_columns(["text", "owner"])))
    texts = concatenate_datasets(parts)
    records = cut_text(texts, tokenizer, prompt_tokens, completion_tokens)
    if not len(records):
        raise ValueError(
            f"No text in {str(source)!r} has more than {prompt_tokens} tokens, so none leaves a completion: "
            "lower prompt_tokens."
        )
    check_records(records)
    left = set(records["owner"])
    if lost := dict.fromkeys(owner for owner in texts["owner"] if owner not in left):
        reason = f"no text of theirs has more than {prompt_tokens} tokens: lower prompt_tokens"
        logger.warning("Nothing is left of %s, since %s.", quoted(lost), reason)
    return tidy_owners(records)


def cut_text(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, prompt_tokens: int, completion_tokens: int | None = None
) -> Dataset:
    """Turns rows of plain text into prompt-completion rows by cutting after numbers of tokens.

    The cuts fall between characters, and prompt + completion is the text again.

    Args:
        dataset: Has a `text` column; the others are kept.
        tokenizer: A fast tokenizer, which tells where in the text a token ends.
        prompt_tokens: Number of tokens of each prompt, special tokens apart; at least 1.
        completion_tokens: Most tokens of a completion, at least 1. A text is then cut into passages, one after the
            other, each a row; what is too short for a completion at the end of a text is left out, and so are texts
            that have none. None: the rest of the text, whole, is its completion.

    Raises:
        ValueError: There is no text column, a text is no string, or, without passages, a row has no text left for
            its completion.
    """
    check_columns(dataset, ("text",))
    for name, number in (("prompt_tokens", prompt_tokens), ("completion_tokens", completion_tokens)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}: give at least 1.")
    if not tokenizer.is_fast:
        raise ValueError("cut_text needs a fast tokenizer, which tells where in the text a token ends.")

    def cut(columns: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        texts = columns.pop("text")
        made: dict[str, list[Any]] = {name: [] for name in (*columns, "prompt", "completion")}
        for i, (row, text) in enumerate(zip(indices, texts, strict=True)):
            if not isinstance(text, str):
                raise ValueError(f"Row {row}: the text is of type {type(text).__name__}, but must be a string.")
            encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ends = [end for _, end in encoded["offset_mapping"]]
            found = list(_passages(text, ends, prompt_tokens, completion_tokens))
            if completion_tokens is None and not found:
                raise ValueError(
                    f"Row {row}: the text has {len(ends)} tokens, which leaves no completion after "
                    f"{prompt_tokens}: drop the row or lower prompt_tokens."
                )
            for prompt, completion in found:
                made["prompt"].append(prompt)
                made["completion"].append(completion)
                for name, values in columns.items():
                    made[name].append(values[i])
        return made

    return dataset.map(cut, batched=True, with_indices=True, remove_columns="text")


def _passages(
    text: str, ends: list[int], prompt_tokens: int, completion_tokens: int | None
) -> Iterator[tuple[str, str]]:
    size = len(ends) if completion_tokens is None else prompt_tokens + completion_tokens
    for first in range(0, len(ends), size or 1):
        last = min(first + size, len(ends))
        if last - first <= prompt_tokens:
            return
        begin = ends[first - 1] if first else 0
        border = ends[first + prompt_tokens - 1]
        prompt, completion = text[begin:border], text[border : len(text) if last == len(ends) else ends[last - 1]]
        # Tokens may be parts of one character, which leaves nothing between them.
        if prompt and completion.strip():
            yield prompt, completion
