"""What the rewards say of a batch of completions: asked once, of each slice where they can, and laid over tokens."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from dareu.trainers.rl._advantages import running_mean, slice_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Slices(NamedTuple):
    """What a dense reward said of B completions."""

    scores: list[list[float] | None]
    """For each completion one score a slice, or None where the reward does not apply."""
    ends: list[list[int]]
    """For each completion the slices' ends in tokens."""


#: Takes what the reward of a number, counted from 0, said of the slices of a batch.
Keep = Callable[[int, Slices], None]


class TokenScores(NamedTuple):
    """What the rewards said of B completions of at most T tokens."""

    rewards: Tensor
    """float32 (B, T): the dense rewards, 0 on padding."""
    terminal: Tensor
    """float32 (B,): the sequence rewards."""
    scored: Tensor
    """bool (B,): False where no reward applied."""
    mask: Tensor
    """bool (B, T): the tokens that count; a completion that was cut off may have none."""
    price: Tensor
    """float32 (B, T): what each token's KL costs."""


def token_scores(sequence_rewards: Tensor, slices: Mapping[int, Slices], weights: Tensor, mask: Tensor) -> TokenScores:
    """Lays the weighted scores of the rewards over the completions' tokens.

    Args:
        sequence_rewards: (B, F), NaN where a reward does not apply.
        slices: What the dense ones of the F rewards said, by their numbers.
        weights: (F,).
        mask: (B, T) bool.
    """
    rewards = torch.zeros(mask.shape, device=mask.device)
    terminal = torch.zeros(len(mask), device=mask.device)
    scored = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
    for column, weight in enumerate(weights.tolist()):
        values = sequence_rewards[:, column]
        scored |= ~values.isnan()
        if column not in slices:
            terminal += weight * values.nan_to_num(0.0)
            continue
        for row, (scores, ends) in enumerate(zip(*slices[column], strict=True)):
            if scores is not None:
                rewards[row, : ends[-1]] += weight * running_mean(scores, ends).to(mask.device)
    return TokenScores(rewards, terminal, scored, mask, torch.zeros_like(rewards))


def scorer(reward: Any, tokenizer: PreTrainedTokenizerBase, num_slices: int, index: int, keep: Keep) -> Any:
    """A reward as it is called: rewards that are models, paths or coroutines are TRL's own affair, score sequences.

    Args:
        reward: See `SliceScorer`, as are the others.
        tokenizer: Decodes.
        num_slices: Slices a completion.
        index: The reward's number.
        keep: Takes what it said.

    Raises:
        ValueError: It is no reward.
    """
    if isinstance(reward, str | nn.Module) or inspect.iscoroutinefunction(reward):
        return reward
    if inspect.iscoroutinefunction(type(reward).__call__):
        return reward
    if not callable(reward):
        raise ValueError(f"A reward must be callable, a model or its path, not {type(reward).__name__}.")
    return SliceScorer(reward, tokenizer, num_slices, index, keep)


class SliceScorer:
    """Wraps a synchronous reward callable: checks its scores, and scores slices where it has a dense form.

    It remembers nothing of a batch.

    Args:
        reward: A TRL reward `f(prompts, completions, **columns)`, optionally with the dense form
            `f.at(prompts, completions, ends, **columns)`.
        tokenizer: Decodes the prefixes at whose ends slices are scored.
        num_slices: k, slices a completion.
        index: The reward's number.
        keep: Takes the number and the slices' scores of each batch, where the reward has a dense form.
    """

    def __init__(
        self, reward: Any, tokenizer: PreTrainedTokenizerBase, num_slices: int, index: int, keep: Keep
    ) -> None:
        self.reward = reward
        self.tokenizer = tokenizer
        self.num_slices = num_slices
        self.index = index
        self.keep = keep
        self.__name__ = getattr(reward, "__name__", type(reward).__name__)

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
        if not hasattr(self.reward, "at"):
            given = self.reward(prompts=prompts, completions=completions, **columns)
            whole = [None if score is None else [float(score)] for score in given]
            self._check(whole, completions, [1] * len(completions))
            return [None if scores is None else scores[-1] for scores in whole]
        ends = [slice_ends(len(ids), self.num_slices) for ids in completion_ids]
        texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
        offsets = [
            character_ends(self.tokenizer, ids, text, row)
            for ids, text, row in zip(completion_ids, texts, ends, strict=True)
        ]
        given = self.reward.at(prompts=prompts, completions=completions, ends=offsets, **columns)
        slices = Slices([None if scores is None else [float(score) for score in scores] for scores in given], ends)
        self._check(slices.scores, completions, [len(row) for row in ends])
        self.keep(self.index, slices)
        return [None if scores is None else scores[-1] for scores in slices.scores]

    def _check(self, given: Sequence[list[float] | None], completions: Sequence[Any], expected: Sequence[int]) -> None:
        if len(given) != len(completions):
            raise ValueError(
                f"The reward {self.__name__!r} gave {len(given)} scores for {len(completions)} completions: "
                "return one for each."
            )
        for row, (scores, number) in enumerate(zip(given, expected, strict=True)):
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
    # A chat template's parser may have cut off what comes before the answer, such as thoughts, which may spell it too
    start = max(str(tokenizer.decode(list(ids), skip_special_tokens=True)).rfind(text), 0)
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
