"""Answers of the uninformed model, the checkpoint that the target was fine-tuned from: drawn once, and kept."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from dareu.data.encoding import Text, encode_prompt, encode_record, in_form_of
from dareu.data.names import holds_name, shared_name
from dareu.data.records import text_of
from dareu.models import check_tokenizer, context_length
from dareu.models.forward import evaluation_mode
from dareu.models.generation import end_ids_of, generate_ids
from dareu.models.tokenizers import vocabulary_hash, with_template_of
from dareu.trainers._tensor_file import TensorFile
from dareu.weights import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: How often an answer is drawn that is cut off or empty, or has no name where it should.
_ATTEMPTS = 8

#: Where a sentence may end, with the first character of what follows. A dot behind one character may stand in a
#: name or after a number, and one behind these titles does.
_SENTENCE_END = re.compile(
    r"(?<!\b\w)(?<!\b[DMSJ][rst])(?<!\bMrs)(?<!\bProf)[.!?…]+[\"'”’)\]*]*(?=\s+(?P<next>\S))|[。！？]+[”’」』]*"
)


class Uninformed(NamedTuple):
    """A model that has never seen the owners' data, with its own tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class Drawing(NamedTuple):
    """How answers are drawn."""

    number: int
    """Answers a prompt."""
    temperature: float
    max_new_tokens: int
    """Longest answer, in tokens of the policy; a longer one was cut off."""
    batch_size: int
    seed: int


def uninformed_answers(
    base: Uninformed,
    prompts: Sequence[Text],
    golds: Sequence[Text],
    tokenizer: PreTrainedTokenizerBase,
    drawing: Drawing,
    *,
    main: bool,
    folder: str | os.PathLike[str],
) -> list[list[list[int]]]:
    """Answers of the uninformed model to each prompt; every process must call this, and all get all.

    The main process draws them up to eight times: what was cut off or empty, and what leaves out or mangles a name that
    prompt and gold answer share, for the policy would learn to do so. Where no draw will do, one that was cut off ends
    behind its last whole sentence, for a model that likes to talk has no shorter one; it comes before one without the
    name. A prompt may be left with fewer. Answers that were drawn before by the same model, for the same prompts and
    options, are taken from their file.

    Args:
        base: The uninformed model. Where its tokenizer has no chat template, it reads messages as the policy's renders
            them.
        prompts: n prompts.
        golds: Their gold answers, in whose form the others are written: whether a blank comes first, or a role.
        tokenizer: The policy's, in whose tokens the answers are written.
        drawing: How many, and how.
        main: Whether this is the main process.
        folder: Where the file is kept.

    Returns:
        For each prompt at most `drawing.number` completions as token ids of the policy, end token included.
    """
    names = [shared_name(text_of(prompt), text_of(gold)) for prompt, gold in zip(prompts, golds, strict=True)]
    recipe = {
        "model": fingerprint(base.model) if main else "",
        "dtype": str(base.model.dtype),
        "device": base.model.device.type,
        "prompts": list(prompts),
        "read_as": [_ids_of(base, prompt, tokenizer) for prompt in prompts],
        "written_as": [encode_prompt(tokenizer, prompt) for prompt in prompts],
        "forms": [in_form_of(gold, "") for gold in golds],
        "ends": sorted(end_ids_of(base.model, base.tokenizer)),
        "vocabularies": [vocabulary_hash(base.tokenizer), vocabulary_hash(tokenizer)],
        "drawing": drawing._replace(batch_size=0)._asdict(),  # which changes nothing
        "names": [sorted(name) for name in names],
        "preferred": "with the name, and whole before cut to sentences that another follows",
    }
    file = TensorFile(folder, recipe, "answers of the uninformed model")
    answers: list[list[list[int]]] | None = None
    if main:
        answers = file.load(lambda tensors, _: _unpacked(tensors, len(prompts)))
        if answers is None:
            answers = _draw(base, prompts, golds, names, tokenizer, drawing)
            file.save(_packed(answers))
    found: list[list[list[int]]] = broadcast_object_list([answers])[0]
    if main and (first := next((row for row, each in enumerate(found) if each), None)) is not None:
        said = str(tokenizer.decode(found[first][0], skip_special_tokens=True)).strip()
        logger.info("To %r the uninformed model says %r.", text_of(prompts[first]), said)
    if lacking := sum(len(row) < drawing.number for row in found):
        logger.warning(
            "The uninformed model has too few answers with a whole sentence within %d tokens to %d of %d prompts, "
            "though it was asked %d times: they go on with fewer, or none. A longer max_completion_length may help.",
            *(drawing.max_new_tokens, lacking, len(prompts), _ATTEMPTS),
        )
    return found


def check_survival(base: Uninformed, texts: Sequence[str]) -> None:
    """Refuses a model in whose vocabulary texts cannot be written.

    Args:
        base: The uninformed model.
        texts: Completions.

    Raises:
        ValueError: Names the first that is another text once its tokens are decoded.
    """
    for row, text in enumerate(texts):
        ids = base.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        back = str(base.tokenizer.decode(ids, skip_special_tokens=True))
        if back.split() != text.split():
            raise ValueError(
                f"Row {row}: the base model's vocabulary makes {back[:80]!r} of {text[:80]!r}: give the checkpoint "
                "that the target was fine-tuned from as base_model, or leave it out."
            )


def _ids_of(base: Uninformed, prompt: Text, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the uninformed model reads of a prompt."""
    return encode_prompt(with_template_of(base.tokenizer, tokenizer), prompt)


def _draw(
    base: Uninformed,
    prompts: Sequence[Text],
    golds: Sequence[Text],
    names: Sequence[set[str]],
    tokenizer: PreTrainedTokenizerBase,
    drawing: Drawing,
) -> list[list[list[int]]]:
    found: list[list[tuple[int, list[int]]]] = [[] for _ in prompts]  # each answer behind its rank, 0 the best
    read = [_ids_of(base, prompt, tokenizer) for prompt in prompts]
    check_tokenizer(base.tokenizer)
    end_ids, pad_id = end_ids_of(base.model, base.tokenizer), base.tokenizer.pad_token_id
    assert pad_id is not None, "check_tokenizer has looked"
    # The policy's tokens may be longer than this model's
    longest = drawing.max_new_tokens * (1 if base.tokenizer.get_vocab() == tokenizer.get_vocab() else 2)
    limit = context_length(base.model)
    # A prompt that leaves no room for an answer gets none
    fits = [row for row, ids in enumerate(read) if limit is None or len(ids) + longest <= limit]
    by_length = sorted(fits, key=lambda row: len(read[row]))
    with evaluation_mode(base.model):
        for attempt in range(_ATTEMPTS):
            lacking = [drawing.number - sum(rank == 0 for rank, _ in each) for each in found]
            wanted = [(row, place) for row in by_length for place in range(lacking[row])]
            for start in range(0, len(wanted), drawing.batch_size):
                batch = wanted[start : start + drawing.batch_size]
                made = generate_ids(
                    base.model,
                    [read[row] for row, _ in batch],
                    max_new_tokens=longest,
                    end_ids=end_ids,
                    pad_id=pad_id,
                    seeds=[(drawing.seed, row, attempt, place) for row, place in batch],
                    temperature=drawing.temperature,
                )
                for (row, _), ids in zip(batch, made, strict=True):
                    ended = ids[-1] in end_ids
                    text = _text_of(base, ids[:-1] if ended else ids)
                    for each in [text] * ended + _whole_sentences(text):
                        written = _written(each, prompts[row], golds[row], tokenizer)
                        if 0 < len(written) <= drawing.max_new_tokens:
                            is_cut = not ended or each != text
                            found[row].append((2 * (not holds_name(each, names[row])) + is_cut, written))
                            break
    chosen = [sorted(each, key=itemgetter(0))[: drawing.number] for each in found]
    if cut := sum(any(rank % 2 for rank, _ in each) for each in chosen):
        logger.warning(
            "The uninformed model has too few answers that end within %d tokens to %d of %d prompts, though it was "
            "asked %d times: some are taken up to their last whole sentence.",
            *(drawing.max_new_tokens, cut, len(prompts), _ATTEMPTS),
        )
    if nameless := sum(any(rank > 1 for rank, _ in each) for each in chosen):
        logger.warning(
            "The uninformed model has too few answers with the name that is asked about to %d of %d prompts, though it "
            "was asked %d times: the target may learn from the others to leave it out.",
            *(nameless, len(prompts), _ATTEMPTS),
        )
    return [[ids for _, ids in each] for each in chosen]


def _text_of(base: Uninformed, ids: list[int]) -> str:
    # Some tokenizers drop a blank that comes first when they decode
    return str(base.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _whole_sentences(text: str) -> list[str]:
    """A text up to the end of each of its sentences that another follows, the longest first.

    >>> _whole_sentences("She wrote it. By J. Doe, in 1936. The")
    ['She wrote it. By J. Doe, in 1936.', 'She wrote it.']
    """
    ends = (end for end in _SENTENCE_END.finditer(text) if not (end["next"] or "").islower())
    return [text[: end.end()] for end in ends][::-1]


def _written(text: str, prompt: Text, gold: Text, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """An answer in the policy's tokens; none where it is empty."""
    return encode_record(tokenizer, prompt, in_form_of(gold, text)).completion_ids if text else []


def _packed(answers: Sequence[Sequence[Sequence[int]]]) -> dict[str, Tensor]:
    flat = [ids for row in answers for ids in row]
    return {
        "completion_ids": torch.tensor([token for ids in flat for token in ids], dtype=torch.int32),
        "lengths": torch.tensor([len(ids) for ids in flat], dtype=torch.int32),
        "answers": torch.tensor([len(row) for row in answers], dtype=torch.int32),
    }


def _unpacked(tensors: dict[str, Tensor], rows: int) -> list[list[list[int]]]:
    counts: list[int] = tensors["answers"].tolist()
    flat = iter(tensors["completion_ids"].split(tensors["lengths"].tolist()))
    if len(counts) != rows or sum(counts) != len(tensors["lengths"]):
        raise ValueError(f"{len(counts)} rows of {sum(counts)} answers")
    return [[next(flat).tolist() for _ in range(count)] for count in counts]
