"""Calls a reward once per batch of generations and keeps what it says of each slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dareu.trainers.rl.advantages import slice_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SliceScorer:
    """Wraps a synchronous reward callable: checks its scores, and scores slices where it has a dense form.

    Args:
        reward: A TRL reward `f(prompts, completions, **columns)`, optionally with the dense form
            `f.at(prompts, completions, ends, **columns)`.
        tokenizer: Decodes the prefixes at whose ends slices are scored.
        num_slices: k, slices a completion.

    Attributes:
        dense: Whether the reward scores slices.
        scores: Of the last batch: for each completion a list with one score a slice (one for a sequence reward), or
            None where the reward does not apply.
        ends: Of the last batch: for each completion the slices' ends in tokens.
    """

    def __init__(self, reward: Any, tokenizer: PreTrainedTokenizerBase, num_slices: int) -> None:
        self.reward = reward
        self.tokenizer = tokenizer
        self.num_slices = num_slices
        self.dense = hasattr(reward, "at")
        self.__name__ = getattr(reward, "__name__", type(reward).__name__)
        self.scores: list[list[float] | None] = []
        self.ends: list[list[int]] = []

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float | None]:
        """The sequence rewards: of a dense reward the last slice's score.

        Raises:
            ValueError: The reward gave another number of scores than asked, or a NaN or infinite one.
        """
        columns["completion_ids"] = completion_ids
        if self.dense:
            self.ends = [slice_ends(len(ids), self.num_slices) for ids in completion_ids]
            texts = [
                completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions
            ]
            offsets = [
                character_ends(self.tokenizer, ids, text, ends)
                for ids, text, ends in zip(completion_ids, texts, self.ends, strict=True)
            ]
            given = self.reward.at(prompts=prompts, completions=completions, ends=offsets, **columns)
            self.scores = [None if scores is None else [float(score) for score in scores] for scores in given]
            expected = [len(ends) for ends in self.ends]
        else:
            given = self.reward(prompts=prompts, completions=completions, **columns)
            self.scores = [None if score is None else [float(score)] for score in given]
            self.ends = [[len(ids)] for ids in completion_ids]
            expected = [1] * len(completions)
        self._check(completions, expected)
        return [None if scores is None else scores[-1] for scores in self.scores]

    def _check(self, completions: Sequence[Any], expected: Sequence[int]) -> None:
        if len(self.scores) != len(completions):
            raise ValueError(
                f"The reward {self.__name__!r} gave {len(self.scores)} scores for {len(completions)} completions: "
                "return one for each."
            )
        for row, (scores, number) in enumerate(zip(self.scores, expected, strict=True)):
            if scores is None:
                continue
            if len(scores) != number:
                raise ValueError(
                    f"The reward {self.__name__!r} gave {len(scores)} scores for the {number} slices of completion "
                    f"{row}: return one for each end."
                )
            if not all(math.isfinite(score) for score in scores):
                raise ValueError(
                    f"The reward {self.__name__!r} gave a NaN or infinite score for completion {row} "
                    f"({completions[row]!r}): return a finite number, or None where it does not apply."
                )


def character_ends(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str, ends: Sequence[int]) -> list[int]:
    """Token counts as character offsets into the decoded completion.

    Args:
        tokenizer: Decodes; special tokens are left out.
        ids: Tokens of the completion.
        text: The completion as it was decoded from all of `ids`, or its end, where a leading part was cut off.
        ends: Token counts, ascending.

    Returns:
        For each end the length of the longest cleanly decodable prefix of `text`; the last is `len(text)` where all
        tokens are in.
    """
    prefixes = tokenizer.batch_decode([list(ids[:end]) for end in ends], skip_special_tokens=True)
    # A chat template's parser may have cut off what comes before the answer, such as a block of thoughts.
    start = max(str(tokenizer.decode(list(ids), skip_special_tokens=True)).find(text), 0)
    prefixes = [prefix[start:] for prefix in prefixes]
    offsets = []
    for end, prefix in zip(ends, prefixes, strict=True):
        if end == len(ids):
            offsets.append(len(text))
            continue
        # A character cut between its tokens decodes to replacement characters, which the whole text does not have.
        length = min(len(prefix), len(text))
        while length and prefix[:length] != text[:length]:
            length -= 1
        offsets.append(max(length, offsets[-1] if offsets else 0))
    return offsets
