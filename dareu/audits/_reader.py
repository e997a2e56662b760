"""How a model is read under an attack."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dareu.audits._audit import Readings
from dareu.data import encode_record, text_of
from dareu.data.encoding import Text
from dareu.metrics import (
    AnswerNLL,
    extraction_strength,
    fact_recall,
    facts_beyond_prompt,
    facts_in_any,
    generate_answers,
    probability,
    rouge_l_recall,
    sample_answers,
    token_scores,
)
from dareu.models import context_length
from dareu.models.forward import evaluation_mode
from dareu.models.generation import end_ids_of, generate_ids

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Reader:
    """Reads what a model still tells of the n rows to forget, in whatever state the model is.

    | reading | what, in [0, 1] |
    |---|---|
    | `rouge` | ROUGE-L recall of the greedy answer |
    | `fact_recall` | share of the gold answer's facts, beyond the row's own prompt, that the answer states |
    | `probability` | exp(-NLL per token) of the gold answer |
    | `extraction_strength` | share of the gold answer that follows from its first tokens |

    `fact_recall` is only there where the rows have a column `facts`.

    Args:
        model: Which model.
        tokenizer: Its tokenizer.
        forget: The rows.
        max_new_tokens: Most tokens of an answer.
        batch_size: Rows at once; the readings do not depend on it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        forget: Dataset,
        *,
        max_new_tokens: int = 200,
        batch_size: int = 32,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._prompts: list[Text] = list(forget["prompt"])
        self._completions: list[Text] = list(forget["completion"])
        self._golds = [text_of(gold) for gold in self._completions]
        self._facts: list[list[str]] | None = None
        if "facts" in forget.column_names:
            self._facts = facts_beyond_prompt(list(forget["facts"]), [text_of(prompt) for prompt in self._prompts])
        self._settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}

    def read(self, prompts: Sequence[Text | None] | None = None, *, rows: Sequence[int] | None = None) -> Readings:
        """All four readings of the model as it is now.

        Args:
            prompts: n prompts in place of the rows' own, None where a row is not asked.
            rows: Only these are asked; default: all.

        Raises:
            ValueError: A row does not fit the model's context, or the model gives it no finite likelihood.
        """
        asked = self._prompts if prompts is None else prompts
        places = [row for row in range(len(self._prompts)) if (rows is None or row in rows) and asked[row] is not None]
        by: tuple[Any, Any, Any] = self._model, self._tokenizer, [asked[row] for row in places]
        answers = generate_answers(*by, **self._settings)
        batch_size = self._settings["batch_size"]
        scored = token_scores(*by, [[self._completions[row]] for row in places], batch_size=batch_size)
        scores = [of_row[0] for of_row in scored]
        found = self._of_answers(places, answers, [self._golds[row] for row in places], self._facts_of(places))
        return found | {
            "probability": self._spread(places, probability(AnswerNLL.of(scores).mean)),
            "extraction_strength": self._spread(places, extraction_strength([each.hits for each in scores])),
        }

    def read_samples(self, num_samples: int, temperature: float, seed: int) -> Readings:
        """`rouge` of the best of several sampled answers, and the share of facts that any of them states.

        Args:
            num_samples: Samples of each row.
            temperature: Divides the logits, > 0.
            seed: Of the draws.
        """
        by = self._model, self._tokenizer, self._prompts
        drawn = {"num_samples": num_samples, "temperature": temperature, "seed": seed, **self._settings}
        samples = sample_answers(*by, **drawn)
        each = [rouge_l_recall([answers[number] for answers in samples], self._golds) for number in range(num_samples)]
        found = {"rouge": np.max(each, axis=0)}
        return found if self._facts is None else found | {"fact_recall": facts_in_any(samples, self._facts)}

    def read_rest(self, share: float) -> Readings:
        """`rouge` and `fact_recall` of how the model goes on from the first part of each gold answer.

        Both look at the rest of it alone: its words, and the facts that the part does not state. A row of which the
        part would be nothing or all is not read.

        Args:
            share: Of the answer's tokens that is given, in (0, 1).
        """
        places, given, rests = [], [], []
        for row, (prompt, completion) in enumerate(zip(self._prompts, self._completions, strict=True)):
            ids = encode_record(self._tokenizer, prompt, completion)
            cut = round(share * (len(ids.completion_ids) - 1))  # the last token is the end
            rest = self._decoded(ids.completion_ids[cut:-1])
            if cut and rest:
                places.append(row)
                given.append((ids.prompt_ids, ids.completion_ids[:cut]))
                rests.append(rest)
        said = self._continued([prompt + part for prompt, part in given])
        found = {"rouge": self._spread(places, rouge_l_recall([self._decoded(ids) for ids in said], rests))}
        if (facts := self._facts_of(places)) is None:
            return found
        parts = [part for _, part in given]
        # A fact that was begun in the part is stated by both together
        whole = [self._decoded(part + ids) for part, ids in zip(parts, said, strict=True)]
        left = facts_beyond_prompt(facts, [self._decoded(part) for part in parts])
        return found | {"fact_recall": self._spread(places, fact_recall(whole, left))}

    def _continued(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """The tokens that follow each, greedily and without an end token."""
        limit, ends = context_length(self._model), end_ids_of(self._model, self._tokenizer)
        pad_id = self._tokenizer.pad_token_id
        most: int = self._settings["max_new_tokens"]
        assert isinstance(pad_id, int), "encode_record has looked"

        def room(row: int) -> int:
            return most if limit is None else min(most, limit - len(prompts[row]))

        said: dict[int, list[int]] = {}
        with evaluation_mode(self._model):
            # Rows short of room share no batch with others, whose answers they would cut
            for new_tokens, alike in groupby(sorted(range(len(prompts)), key=room), key=room):
                rows = list(alike)
                for start in range(0, len(rows), self._settings["batch_size"]):
                    batch = rows[start : start + self._settings["batch_size"]]
                    asked = [prompts[row] for row in batch]
                    settings: Any = {"max_new_tokens": new_tokens, "end_ids": ends, "pad_id": pad_id}
                    for row, ids in zip(batch, generate_ids(self._model, asked, **settings), strict=True):
                        said[row] = ids[:-1] if ids[-1] in ends else ids
        return [said[row] for row in range(len(prompts))]

    def _of_answers(
        self, places: Sequence[int], answers: Sequence[str], golds: Sequence[str], facts: list[list[str]] | None
    ) -> dict[str, NDArray[np.float64]]:
        found = {"rouge": self._spread(places, rouge_l_recall(answers, golds))}
        return found if facts is None else found | {"fact_recall": self._spread(places, fact_recall(answers, facts))}

    def _facts_of(self, places: Sequence[int]) -> list[list[str]] | None:
        return None if self._facts is None else [self._facts[row] for row in places]

    def _spread(self, places: Sequence[int], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of some rows among all n, NaN elsewhere."""
        found = np.full(len(self._prompts), np.nan)
        found[list(places)] = values
        return found

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
