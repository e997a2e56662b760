"""What is taught in place of the answers to forget: alternates of them, from a column or from the uninformed model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from dareu.data.encoding import EncodedRecord, encode_record, in_form_of
from dareu.trainers._uninformed import Drawing, Uninformed, uninformed_answers

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: The source that is no column of the data.
UNINFORMED = "uninformed"


def column_of_alternates(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, column: str, number: int, max_length: int | None
) -> list[EncodedRecord]:
    """The alternates of every row that a column holds, `number` of each, row by row.

    Args:
        dataset: The rows to forget.
        tokenizer: The policy's.
        column: Holds an alternate of each answer, or a list of them.
        number: Of each row.
        max_length: Most tokens of prompt and alternate; None for no limit.

    Raises:
        ValueError: There is no such column, or a row has too few alternates or too long ones.
    """
    if column not in dataset.column_names:
        raise ValueError(
            f"alternates is {column!r}, which is no column of the data ({', '.join(dataset.column_names)}): name one, "
            f"or {UNINFORMED!r}."
        )
    found = []
    columns = zip(dataset["prompt"], dataset["completion"], dataset[column], strict=True)
    for row, (prompt, gold, given) in enumerate(columns):
        texts = [text for text in ([given] if isinstance(given, str) else given or []) if text.strip()]
        try:
            found.append([encode_record(tokenizer, prompt, in_form_of(gold, text.strip())) for text in texts])
        except ValueError as error:
            raise ValueError(f"Row {row}, with an alternate in place of the answer: {error}") from error
    return _as_many(found, number, max_length)


def drawn_alternates(
    base: Uninformed,
    dataset: Dataset,
    records: Sequence[EncodedRecord],
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    max_length: int | None,
) -> list[EncodedRecord | None]:
    """Answers of the uninformed model to every row, `num_alternates` of each; every process must call this.

    A row to which it has fewer takes them in turn; of one to which it has none each is None.

    Args:
        base: The uninformed model.
        dataset: The rows to forget.
        records: They, encoded.
        tokenizer: The policy's.
        args: An `UnlearnConfig`.
        max_length: Most tokens of prompt and answer; None for no limit.

    Raises:
        ValueError: The model has no answer to any row that fits.
    """
    base.model.to(args.device)
    answers = uninformed_answers(
        base,
        list(dataset["prompt"]),
        list(dataset["completion"]),
        tokenizer,
        Drawing(args.num_alternates, args.uninformed_temperature, args.max_completion_length, 64, args.seed),
        main=PartialState().is_main_process,
        folder=args.original_cache_dir or Path(args.output_dir) / "original",
    )
    found: list[EncodedRecord | None] = []
    for record, alternates in zip(records, answers, strict=True):
        written = [EncodedRecord(record.prompt_ids, ids) for ids in alternates]
        fitting = [each for each in written if max_length is None or sum(map(len, each)) <= max_length]
        found += [fitting[place % len(fitting)] if fitting else None for place in range(args.num_alternates)]
    if lacking := found.count(None) // args.num_alternates:
        if lacking == len(records):
            raise ValueError(
                "The base model has no answer to any row with a whole sentence within max_completion_length "
                f"({args.max_completion_length} tokens): raise it, or name a column of alternates."
            )
        logger.warning(
            "%d of %d rows have no alternate and are left out of training, so that they may not be forgotten: raise "
            "max_completion_length (%d tokens).",
            *(lacking, len(records), args.max_completion_length),
        )
    return found


def _as_many(found: Sequence[Sequence[EncodedRecord]], number: int, max_length: int | None) -> list[EncodedRecord]:
    """The first `number` of each row, once it is known that there are so many, and that they fit."""
    for row, alternates in enumerate(found):
        if len(alternates) < number:
            raise ValueError(
                f"Row {row} has {len(alternates)} alternates, and {number} are wanted: lower num_alternates."
            )
        for record in alternates[:number]:
            if max_length is not None and sum(map(len, record)) > max_length:
                raise ValueError(
                    f"Row {row}: with an alternate in place of the answer it has {sum(map(len, record))} tokens, but "
                    f"the model takes {max_length}: shorten the alternate or drop the row."
                )
    return [record for alternates in found for record in alternates[:number]]
