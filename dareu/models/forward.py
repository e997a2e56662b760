"""The forward pass of everybody: what is predicted at completion tokens, in float32; positions, modes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from dareu.models._head import in_place_of_head, unwrapped
from dareu.models.prompts import shared_prompts
from dareu.models.tiles import Predictions, token_terms, weighted_term

#: The label of a token that is no completion's: nothing is predicted in its place.
IGNORED_LABEL = -100


@dataclass(frozen=True)
class Completions:
    """The n completion tokens of a batch."""

    tokens: Tensor
    """int64 (n,): the tokens."""
    rows: Tensor
    """int64 (n,): the row of the batch each of them belongs to."""
    num_rows: int

    def row_sum(self, values: Tensor) -> Tensor:
        """(num_rows,): sums of token values (n,) over each row."""
        return torch.zeros(self.num_rows, dtype=values.dtype, device=values.device).index_add(0, self.rows, values)

    def lengths(self) -> Tensor:
        """float32 (num_rows,): completion tokens of each row, end token included."""
        return self.row_sum(torch.ones_like(self.tokens, dtype=torch.float32))


@dataclass(frozen=True)
class CompletionTerms(Completions):
    """What was asked of the distributions in the completion tokens' places."""

    terms: Mapping[str, Tensor]
    """By name float32 (n,); see `dareu.models.tiles.TERMS`."""

    def logps(self) -> Tensor:
        """float32 (n,): log-probabilities of the tokens."""
        return self.terms["logps"]


@dataclass(frozen=True)
class CompletionLogits(Completions):
    """Logits at the n completion tokens of a batch."""

    logits: Tensor
    """float32 (n, V): what the model predicts in each completion token's place."""

    def terms(self, names: Sequence[str] = ("logps",), teacher: Predictions | None = None) -> CompletionTerms:
        """What `completion_terms` would ask of the model."""
        terms = token_terms(names, Predictions(self.logits), self.tokens, teacher)[0]
        return CompletionTerms(self.tokens, self.rows, self.num_rows, dict(zip(names, terms, strict=True)))


def at_completions(
    model: nn.Module, batch: Mapping[str, Tensor], compute: Callable[[Predictions, Completions], Tensor]
) -> Tensor:
    """Runs the model on a collated batch, and computes something of what it predicts in completion tokens' places.

    Args:
        model: A causal language model, wrapped or not.
        batch: `input_ids` and `attention_mask`, (B, T), and `labels` (B, T), or (B, T + 1) where the last token of each
            row is predicted but not read, as it need not be. Labels are `IGNORED_LABEL` outside completions. Rows may
            be padded on either side.
        compute: Takes the predictions of the n tokens. It runs within the model's forward, and may be called twice.

    Returns:
        What `compute` gave.
    """
    inputs, completions, pick = _asked(model, batch)
    return in_place_of_head(model, inputs, lambda made: compute(made._replace(inputs=pick(made.inputs)), completions))


def completion_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> CompletionLogits:
    """The logits that predict completion tokens, all at once: much memory, for what cannot do with terms.

    Args:
        model: A causal language model.
        batch: As for `at_completions`.
    """
    inputs, completions, pick = _asked(model, batch)
    logits = pick(model(**inputs).logits)
    return CompletionLogits(**vars(completions), logits=logits.float())


def completion_terms(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    names: Sequence[str] = ("logps",),
    *,
    teacher: Predictions | None = None,
    temperature: float = 1.0,
) -> CompletionTerms:
    """What is asked of the model's distributions at completion tokens, differentiable, without all logits at once.

    Args:
        model: A causal language model.
        batch: As for `at_completions`.
        names: Of `dareu.models.tiles.TERMS`.
        teacher: What `completion_predictions` kept of the same batch, for terms that compare with it.
        temperature: Divides the logits.
    """
    seen: list[Completions] = []

    def compute(made: Predictions, completions: Completions) -> Tensor:
        seen.append(completions)
        return token_terms(names, made._replace(temperature=temperature), completions.tokens, teacher)

    terms = at_completions(model, batch, compute)[0]
    return CompletionTerms(**vars(seen[-1]), terms=dict(zip(names, terms, strict=True)))


def completion_predictions(model: nn.Module, batch: Mapping[str, Tensor]) -> Predictions:
    """What a teacher predicts at completion tokens: its last hidden states wait, and not its logits.

    The teacher may be another model afterwards, as where weights are swapped: its head is kept as it is now.

    Args:
        model: A causal language model; no gradient reaches it.
        batch: As for `at_completions`.
    """
    stays = not _is_sharded(model)
    return _kept(model, batch, lambda made: made.kept(stays=stays))


def completion_states(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> tuple[list[Tensor], Predictions]:
    """What a teacher predicts in several batches, for one that is asked about the same rows again and again.

    Args:
        model: A causal language model; no gradient reaches it.
        batches: One at least, each as for `at_completions`.

    Returns:
        Of each row of the batches, in their order, the hidden states (n, H) in its n completion tokens' places; and the
        head as it is now, with the last batch's states.

    Raises:
        NotImplementedError: The model is sharded, or its head cannot be taken out of the forward.
    """
    if _is_sharded(model):
        raise NotImplementedError("the head is whole within a forward only")
    states: list[Tensor] = []
    for batch in batches:
        made = _kept(model, batch, lambda made: made)
        if made.weight is None:
            raise NotImplementedError("the forward gives logits only")
        lengths: list[int] = (batch["labels"] != IGNORED_LABEL).sum(1).tolist()
        states += made.inputs.split(lengths)
    return states, made.with_head_kept()


def _kept(model: nn.Module, batch: Mapping[str, Tensor], keep: Callable[[Predictions], Predictions]) -> Predictions:
    """What `keep` makes, within a forward without gradient, of the predictions at completion tokens."""
    kept: list[Predictions] = []

    def compute(made: Predictions, completions: Completions) -> Tensor:
        kept.append(keep(made))
        return made.inputs.new_zeros(0, dtype=torch.float32)

    with torch.no_grad():
        at_completions(model, batch, compute)
    return kept[-1]


def _is_sharded(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


def completion_mean(
    model: nn.Module, batch: Mapping[str, Tensor], name: str, *, teacher: Predictions | None = None
) -> Tensor:
    """A term's mean over each record's completion tokens, then over records, with its gradient in the same pass.

    Args:
        model: A causal language model.
        batch: As for `at_completions`; each record has a completion token.
        name: Of `dareu.models.tiles.TERMS`.
        teacher: As for `completion_terms`.

    Returns:
        A float32 scalar. Its backward can be called once.
    """

    def compute(made: Predictions, completions: Completions) -> Tensor:
        weights = (1 / (completions.lengths() * completions.num_rows))[completions.rows]
        return weighted_term(name, weights, made, completions.tokens, teacher)

    return at_completions(model, batch, compute).reshape(())


def _asked(
    model: nn.Module, batch: Mapping[str, Tensor]
) -> tuple[dict[str, Any], Completions, Callable[[Tensor], Tensor]]:
    """The model's inputs, the completion tokens, and what picks their places, (n, ·), of an output (B, K, ·)."""
    labels, attention_mask = batch["labels"], batch["attention_mask"]
    answers = (labels != IGNORED_LABEL).any(0).nonzero()
    first = int(answers[0]) if len(answers) else labels.shape[1] - 1  # none: a forward, since others may wait for it
    assert first > 0, "a completion token needs something before it"
    # Only what predicts the completions goes to the head.
    kept = attention_mask.shape[1] - first + 1
    inputs = {"input_ids": batch["input_ids"], "attention_mask": attention_mask}
    if takes_positions(model):
        inputs["position_ids"] = positions_of(attention_mask)
    targets = labels[:, first:]
    rows, columns = (targets != IGNORED_LABEL).nonzero(as_tuple=True)

    def pick(output: Tensor) -> Tensor:
        return output[:, -kept:][:, : targets.shape[1]][rows, columns]

    return (
        inputs | {"logits_to_keep": kept, "use_cache": False},
        Completions(targets[rows, columns], rows, len(labels)),
        pick,
    )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switches dropout and the like off, and puts every module back into its own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def positions_of(attention_mask: Tensor) -> Tensor:
    """Positions that count each row's own tokens, wherever it is padded: int64 of the mask's shape (B, T)."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def takes_positions(model: nn.Module) -> bool:
    """Whether a model's forward can be told positions; those without (ALiBi, recurrent) go by the mask."""
    # The class's: trainers replace the forward of the instance.
    return "position_ids" in inspect.signature(type(unwrapped(model)).forward).parameters


def give_positions(model: nn.Module) -> None:
    """Makes a model count each row's own tokens wherever a forward says nothing of positions.

    TRL pads prompts on the left and leaves positions to the model, most of which then count the padding. With
    learnt positions (GPT-2) the log-probabilities in its loss would be of another model than the one that samples,
    for `generate` counts rightly, and would depend on what else is in the batch.
    """
    if takes_positions(model):
        model.register_forward_pre_hook(_add_positions, with_kwargs=True)


def _add_positions(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    mask, ids = kwargs.get("attention_mask"), kwargs.get("input_ids")
    if kwargs.get("position_ids") is None and mask is not None and ids is not None and mask.shape == ids.shape:
        kwargs["position_ids"] = positions_of(mask)
    return args, kwargs


def sampled_logps(
    model: nn.Module, rollout: Mapping[str, Tensor], *, batch_size: int, temperature: float = 1.0
) -> Tensor:
    """Log-probabilities of sampled completions.

    Args:
        model: A causal language model.
        rollout: TRL's: left-padded `prompt_ids`, `prompt_mask`, right-padded `completion_ids`, `completion_mask`.
        batch_size: Rows a forward.
        temperature: Divides the logits.

    Returns:
        float32 (B, T), 0 where `completion_mask` is 0.
    """
    ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1)
    mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
    number = rollout["completion_ids"].shape[1]
    return sampled_terms(model, ids, mask, number, batch_size=batch_size, temperature=temperature)["logps"]


def sampled_terms(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    num_completion_tokens: int,
    names: Sequence[str] = ("logps",),
    *,
    batch_size: int,
    temperature: float = 1.0,
) -> dict[str, Tensor]:
    """What is asked of the model's distributions at the tokens of sampled completions, differentiable.

    A prompt that completions of a batch have in common is computed once, where the model allows it.

    Args:
        model: A causal language model.
        input_ids: (B, P + T), left-padded prompts and right-padded completions.
        attention_mask: Of the same shape.
        num_completion_tokens: T.
        names: Of `dareu.models.tiles.TERMS`; no teacher can be given.
        batch_size: Rows a forward.
        temperature: Divides the logits.

    Returns:
        By name float32 (B, T), 0 where the mask is 0.
    """
    width = input_ids.shape[1] - num_completion_tokens
    sampled = attention_mask[:, width:].bool()
    labels = input_ids.masked_fill(attention_mask == 0, IGNORED_LABEL)
    labels[:, :width] = IGNORED_LABEL
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for part in (slice(start, start + batch_size) for start in range(0, len(input_ids), batch_size)):
        batch = {"input_ids": input_ids[part], "attention_mask": attention_mask[part], "labels": labels[part]}
        with shared_prompts(model, width - 1):  # the prompt's last token predicts the completion's first
            terms = completion_terms(model, batch, names, temperature=temperature).terms
        for name, values in terms.items():
            rows = torch.zeros(sampled[part].shape, dtype=values.dtype, device=values.device)
            found[name].append(rows.masked_scatter(sampled[part], values))
    return {name: torch.cat(parts) for name, parts in found.items()}
