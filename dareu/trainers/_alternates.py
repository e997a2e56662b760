"""What is taught in place of the answers to forget: alternates of them, from a column or from the uninformed model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from dareu.data.encoding import EncodedRecord, Text, encode_record
from dareu.data.records import text_of
from dareu.trainers._uninformed import Drawing, Uninformed, check_survival, uninformed_answers

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

#: The source that is no column of the data.
UNINFORMED = "uninformed"


def alternates_of(
    dataset: Dataset,
    records: Sequence[EncodedRecord],
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    base: Uninformed | None,
    max_length: int | None,
) -> list[EncodedRecord]:
    """The alternates of every row, `num_alternates` of each, row by row; every process must call this.

    Args:
        dataset: The rows to forget.
        records: They, encoded.
        tokenizer: The policy's.
        args: An `UnlearnConfig`.
        base: The uninformed model.
        max_length: Most tokens of prompt and alternate; None for no limit.

    Raises:
        ValueError: There is no such column or no base model, or a row has too few alternates or too long ones.
    """
    number = args.num_alternates
    if args.alternates == UNINFORMED:
        found = _drawn(dataset, records, tokenizer, args, base)
    else:
        found = _of_column(dataset, tokenizer, args.alternates)
    for row, alternates in enumerate(found):
        if len(alternates) < number:
            raise ValueError(
                f"Row {row} has {len(alternates)} alternates, and {number} are wanted: lower num_alternates, or raise "
                "max_completion_length where the base model draws them."
            )
        for record in alternates[:number]:
            if max_length is not None and sum(map(len, record)) > max_length:
                raise ValueError(
                    f"Row {row}: with an alternate in place of the answer it has {sum(map(len, record))} tokens, but "
                    f"the model takes {max_length}: shorten the alternate or drop the row."
                )
    return [record for alternates in found for record in alternates[:number]]


def _drawn(
    dataset: Dataset,
    records: Sequence[EncodedRecord],
    tokenizer: PreTrainedTokenizerBase,
    args: Any,
    base: Uninformed | None,
) -> list[list[EncodedRecord]]:
    if base is None:
        raise ValueError(
            "alternates are to be drawn from the uninformed model: give base_model, the checkpoint that the target was "
            "fine-tuned from, or name a column of alternates."
        )
    check_survival(base, [text_of(completion) for completion in dataset["completion"]])
    base.model.to(args.device)
    answers = uninformed_answers(
        base,
        list(dataset["prompt"]),
        tokenizer,
        Drawing(args.num_alternates, 1.0, args.max_completion_length, 64, args.seed),
        main=PartialState().is_main_process,
        folder=args.original_cache_dir or Path(args.output_dir) / "original",
    )
    return [
        [EncodedRecord(record.prompt_ids, ids) for ids in alternates]
        for record, alternates in zip(records, answers, strict=True)
    ]


def _of_column(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, column: str) -> list[list[EncodedRecord]]:
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
            found.append([encode_record(tokenizer, prompt, _as_completion(gold, text)) for text in texts])
        except ValueError as error:
            raise ValueError(f"Row {row}, with an alternate in place of the answer: {error}") from error
    return found


def _as_completion(gold: Text, alternate: str) -> Text:
    """An alternate in the form of the answer, with the blanks before it."""
    if not isinstance(gold, str):
        return [{"role": "assistant", "content": alternate.strip()}]
    return gold[: len(gold) - len(gold.lstrip())] + alternate.strip()
