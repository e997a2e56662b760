"""The forward pass of everybody: logits and log-probabilities at completion tokens in float32, positions, modes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn

#: The label of a token that is no completion's: nothing is predicted in its place.
IGNORED_LABEL = -100


class CompletionLogits(NamedTuple):
    """Logits at the n completion tokens of a batch."""

    logits: Tensor
    """float32 (n, V): what the model predicts in each completion token's place."""
    tokens: Tensor
    """int64 (n,): the completion tokens."""
    rows: Tensor
    """int64 (n,): the row of the batch each of them belongs to."""
    num_rows: int

    def logps(self) -> Tensor:
        """float32 (n,): log-probabilities of the tokens."""
        picked: Tensor = self.logits.log_softmax(-1).gather(-1, self.tokens[:, None]).squeeze(-1)
        return picked

    def row_sum(self, values: Tensor) -> Tensor:
        """(num_rows,): sums of token values (n,) over each row."""
        return torch.zeros(self.num_rows, dtype=values.dtype, device=values.device).index_add(0, self.rows, values)

    def lengths(self) -> Tensor:
        """float32 (num_rows,): completion tokens of each row, end token included."""
        return self.row_sum(torch.ones_like(self.tokens, dtype=torch.float32))


def completion_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> CompletionLogits:
    """Runs the model on a collated batch and keeps the logits that predict completion tokens.

    Args:
        model: A causal language model.
        batch: `input_ids` and `attention_mask`, (B, T), and `labels` (B, T), or (B, T + 1) where the last token of each
            row is predicted but not read, as it need not be. Labels are `IGNORED_LABEL` outside completions. Rows may
            be padded on either side.
    """
    labels, attention_mask = batch["labels"], batch["attention_mask"]
    answers = (labels != IGNORED_LABEL).any(0).nonzero()
    first = int(answers[0]) if len(answers) else labels.shape[1] - 1  # none: a forward, since others may wait for it
    assert first > 0, "a completion token needs something before it"
    positions = {"position_ids": positions_of(attention_mask)} if takes_positions(model) else {}
    # Only what predicts the completions goes through the head: the bulk of the memory, a vocabulary's width each.
    kept = attention_mask.shape[1] - first + 1
    output = model(
        input_ids=batch["input_ids"],
        attention_mask=attention_mask,
        **positions,
        logits_to_keep=kept,
        use_cache=False,
    )
    targets = labels[:, first:]
    rows, columns = (targets != IGNORED_LABEL).nonzero(as_tuple=True)
    logits = output.logits[:, -kept:][:, : targets.shape[1]]
    return CompletionLogits(logits[rows, columns].float(), targets[rows, columns], rows, len(labels))


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
    for wrapped in ("module", "_orig_mod"):  # by DDP, by torch.compile
        model = getattr(model, wrapped, model)
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    # The class's: trainers replace the forward of the instance.
    return "position_ids" in inspect.signature(type(inner).forward).parameters


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
    attention_mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
    completion_mask = rollout["completion_mask"].bool()
    labels = ids.masked_fill(attention_mask == 0, IGNORED_LABEL)
    labels[:, : rollout["prompt_ids"].shape[1]] = IGNORED_LABEL
    logps = torch.zeros(completion_mask.shape, device=ids.device)
    for part in (slice(start, start + batch_size) for start in range(0, len(ids), batch_size)):
        batch = {"input_ids": ids[part], "attention_mask": attention_mask[part], "labels": labels[part]}
        scored = completion_logits(model, batch)
        logps[part][completion_mask[part]] = scored._replace(logits=scored.logits / temperature).logps()
    return logps


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher ‖ student) of two tensors of logits (n, V): float32 (n,), in nats, ≥ 0."""
    teacher_logps, student_logps = teacher.log_softmax(-1), student.log_softmax(-1)
    return (teacher_logps.exp() * (teacher_logps - student_logps)).sum(-1)
