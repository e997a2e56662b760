"""Guided groups: completions that join a row's sampled ones, the gold one and those of the uninformed model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dareu.data.encoding import EncodedRecord, encode_dataset
from dareu.models.forward import evaluation_mode, sampled_logps
from dareu.trainers._uninformed import Drawing, Uninformed, uninformed_answers
from dareu.trainers.rl._rollouts import Rollout, rollouts_folder

if TYPE_CHECKING:
    from dareu.trainers.rl.trainer import DareUTrainer

logger = logging.getLogger(__name__)


class Guide(NamedTuple):
    """What joins the sampled completions of a row, in the order of their places in its group."""

    completions: list[list[int] | None]
    """Token ids with the end token; None: the place is sampled like any other."""
    gold_logps: Tensor
    """float32 (T,): of each token of the gold completion under π_N, at the sampling temperature; empty without one."""
    floor: Tensor
    """float32 (T,): the same under the uninformed model; -inf where it has other tokens."""

    def completion(self, place: int) -> list[int] | None:
        """The completion of a place in the group; None where it is sampled."""
        return self.completions[place] if place < len(self.completions) else None


class GuidedTokens(NamedTuple):
    """Which of B completions of at most T tokens were not sampled, and what is known of the gold ones' tokens."""

    is_guided: Tensor
    """bool (B,): gold completions and those of the uninformed model."""
    is_gold: Tensor
    """bool (B,)."""
    original_logps: Tensor
    """float32 (B, T): under π_N, 0 where a completion is not gold."""
    floor: Tensor
    """float32 (B, T): under the uninformed model, likewise."""


def places(golds: int, gold: list[int] | None, uninformed: Sequence[list[int]], wanted: int) -> list[list[int] | None]:
    """The completions of a guided group's first places.

    Args:
        golds: Places of the gold completion.
        gold: It; None where it is too long.
        uninformed: Answers of the uninformed model, `wanted` at most.
        wanted: Places that they have.

    >>> places(1, [7, 2], [[5, 2]], 2)
    [[7, 2], [5, 2], None]
    """
    lacking = [None] * (wanted - len(uninformed))
    return [gold] * golds + [*uninformed, *lacking]


class Guides:
    """The guides of all forget rows.

    Args:
        of_rows: Of each row.
        num_gold: The first places of a group are the gold completion's.
    """

    def __init__(self, of_rows: Sequence[Guide], num_gold: int) -> None:
        self.of_rows = of_rows
        self.num_gold = num_gold

    def given(self, rows: Sequence[int], places: Sequence[int]) -> list[list[int] | None]:
        """Of each of B completions its token ids, or None where it is sampled.

        Args:
            rows: Of each completion.
            places: Of each completion in its group.
        """
        return [self.of_rows[row].completion(place) for row, place in zip(rows, places, strict=True)]

    def sources(self, rows: Sequence[int], places: Sequence[int]) -> list[str]:
        """Of each of B completions whether it is `sampled`, `gold` or `uninformed`."""
        guided = ["gold" if place < self.num_gold else "uninformed" for place in places]
        given = self.given(rows, places)
        return ["sampled" if ids is None else source for ids, source in zip(given, guided, strict=True)]

    def tokens(self, rows: Sequence[int], places: Sequence[int], num_tokens: int, device: torch.device) -> GuidedTokens:
        """Lays what is known of guided completions over a batch of B, of at most `num_tokens` tokens."""
        original, floor = torch.zeros(2, len(rows), num_tokens)
        is_guided, is_gold = torch.zeros(2, len(rows), dtype=torch.bool)
        for i, (row, place) in enumerate(zip(rows, places, strict=True)):
            guide = self.of_rows[row]
            is_guided[i] = guide.completion(place) is not None
            if is_guided[i] and place < self.num_gold:
                is_gold[i] = True
                original[i, : len(guide.gold_logps)] = guide.gold_logps
                floor[i, : len(guide.floor)] = guide.floor
        return GuidedTokens(*(tensor.to(device) for tensor in (is_guided, is_gold, original, floor)))


def gold_weights(logps: Tensor, guided: GuidedTokens, beta: float = 1.0) -> Tensor:
    """What a token's advantage counts: of a gold one min(1, (π/π_N)^β) down to the uninformed model's π, of others 1.

    The gold completion is a sample of π_N, and π/π_N its importance ratio, truncated as in TOPR (arXiv 2503.14286)
    with no floor below: so its push fades as the token becomes unlikely, the more slowly the smaller β is, as in NPO's
    gradient. It ends where the token is no likelier than to a model that knows nothing of the owner, for below that
    there is nothing to forget.

    Args:
        logps: (B, T) under the policy, at the sampling temperature.
        guided: Of the same B completions.
        beta: β ≥ 0; at 0 the push does not fade before it ends.

    Returns:
        float32 (B, T) in [0, 1], without gradient.
    """
    logps = logps.detach().float()
    ratio = (beta * (logps - guided.original_logps).clamp(max=0.0)).exp()
    weights = torch.where(logps > guided.floor, ratio, 0.0)
    return torch.where(guided.is_gold[:, None], weights, 1.0)


def weigh_gold(logps: Tensor, inputs: dict[str, Any], beta: float) -> tuple[Tensor, Tensor]:
    """Gives gold tokens their weight and every guided one the ratio 1, in what a loss is computed of.

    Args:
        logps: (B, T) under the policy.
        inputs: Of the loss, which are changed.
        beta: Of `gold_weights`.

    Returns:
        The weights (B, T), and which of them are gold tokens'.
    """
    tokens = GuidedTokens(*(inputs[name] for name in GuidedTokens._fields))
    weights = gold_weights(logps, tokens, beta)
    inputs["advantages"] = inputs["advantages"] * weights
    for name in ("old_per_token_logps", "ref_per_token_logps"):  # they are samples of neither policy
        if name in inputs:
            inputs[name] = torch.where(tokens.is_guided[:, None], logps.detach(), inputs[name])
    return weights, inputs["completion_mask"].bool() & tokens.is_gold[:, None]


def make_guides(trainer: DareUTrainer, base: Uninformed) -> Guides:
    """The guide of every forget row, made while the trainer's model is still π_N; every process must call this."""
    args, dataset, accelerator = trainer.args, trainer.train_dataset, trainer.accelerator
    tokenizer, longest = trainer.processing_class, trainer.max_completion_length
    records = encode_dataset(dataset, tokenizer)
    base.model.to(accelerator.device)
    uninformed: list[list[list[int]]] = [[] for _ in records]
    if trainer.num_uninformed:
        uninformed = uninformed_answers(
            base,
            list(dataset["prompt"]),
            list(dataset["completion"]),
            tokenizer,
            Drawing(
                *(trainer.num_uninformed, args.uninformed_temperature, longest),
                *(args.rollout_batch_size, args.seed),
            ),
            main=accelerator.is_main_process,
            folder=rollouts_folder(args),
        )
    golds: list[int] = []
    if trainer.num_gold:
        golds = [row for row, record in enumerate(records) if len(record.completion_ids) <= longest]
        if len(golds) < len(records):
            logger.warning(
                "The gold completions of %d of %d rows are longer than max_completion_length (%d) and join no group.",
                *(len(records) - len(golds), len(records), longest),
            )
    original, floor = _gold_logps(trainer, base, [records[row] for row in golds])
    known = dict(zip(golds, zip(original, floor, strict=True), strict=True))
    guides = []
    for row, record in enumerate(records):
        gold = record.completion_ids if row in known else None
        taken = places(trainer.num_gold, gold, uninformed[row], trainer.num_uninformed)
        guides.append(Guide(taken, *known.get(row, (torch.zeros(0), torch.zeros(0)))))
    return Guides(guides, trainer.num_gold)


def _gold_logps(
    trainer: DareUTrainer, base: Uninformed, records: Sequence[EncodedRecord]
) -> tuple[list[Tensor], list[Tensor]]:
    """Of each record's completion (T,) log-probabilities under π_N and under the uninformed model, on the CPU."""
    same = base.tokenizer.get_vocab() == trainer.processing_class.get_vocab()
    if not same:
        logger.info("The base model has other tokens than the target, so that gold completions are pushed down freely.")
    size = trainer.args.rollout_batch_size
    original: list[Tensor] = []
    floor: list[Tensor] = []
    for start in range(0, len(records), size):
        part = records[start : start + size]
        tensors = as_rollout(part, trainer.processing_class.pad_token_id, trainer.accelerator.device)
        lengths = [len(record.completion_ids) for record in part]
        rollout = Rollout()
        rollout.output = tensors
        spoken = trainer.policy_logps(rollout)
        original += [logps[:length].float().cpu() for logps, length in zip(spoken, lengths, strict=True)]
        if not same:
            floor += [torch.full((length,), -torch.inf) for length in lengths]
            continue
        with evaluation_mode(base.model), torch.no_grad(), trainer.accelerator.autocast():
            temperature = trainer.args.temperature
            said = sampled_logps(base.model, tensors, batch_size=size, temperature=temperature)
        floor += [logps[:length].float().cpu() for logps, length in zip(said, lengths, strict=True)]
    return original, floor


def as_rollout(records: Sequence[EncodedRecord], pad_token_id: int, device: torch.device) -> dict[str, Tensor]:
    """Prompts and completions of records in the form that TRL gives a rollout."""

    def padded(rows: list[list[int]], value: int, side: str) -> Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], True, value, side).to(device)

    prompts = [record.prompt_ids for record in records]
    completions = [record.completion_ids for record in records]
    return {
        "prompt_ids": padded(prompts, pad_token_id, "left"),
        "prompt_mask": padded([[1] * len(row) for row in prompts], 0, "left"),
        "completion_ids": padded(completions, pad_token_id, "right"),
        "completion_mask": padded([[1] * len(row) for row in completions], 0, "right"),
    }
