"""The retain term that every method shares: what holds the model in place on retained records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dareu.data.encoding import CompletionCollator, EncodedRecord
from dareu.models.forward import completion_mean, completion_predictions
from dareu.models.tiles import Predictions
from dareu.trainers.original import Original

RetainLoss = Literal["kl", "nll", "none"]


def stream_rows(number: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The rows of batch number `step` of a stream over `number` rows: pass after pass, each in an order of its own."""
    stream = range(step * batch_size, (step + 1) * batch_size)
    orders = {
        turn: torch.randperm(number, generator=torch.Generator().manual_seed(seed * 100_003 + turn))
        for turn in {place // number for place in stream}
    }
    return [int(orders[place // number][place % number]) for place in stream]


class RetainBatch(NamedTuple):
    """A batch of retained records, and what π_N predicts on it where the loss is a KL."""

    inputs: dict[str, Tensor]
    teacher: Predictions | None


class RetainTerm:
    """KL(π_N ‖ π) or the cross-entropy on retained records, averaged over each record's answer tokens.

    `prepare` comes before the student's forward of the same step: it may swap weights in the model, which autograd
    would not survive between a forward and its backward.

    Args:
        records: The retained records.
        collator: Pads them.
        batch_size: Records a step (on each process).
        loss: `"kl"`: forward KL over the whole vocabulary; `"nll"`: cross-entropy; `"none"`: no retain term.
        original: Gives π_N; `"nll"` needs none.
        seed: Of the order of the records.
    """

    def __init__(
        self,
        records: Sequence[EncodedRecord],
        collator: CompletionCollator,
        *,
        batch_size: int,
        loss: RetainLoss,
        original: Original | None,
        seed: int,
    ) -> None:
        assert loss != "none"
        if not records:
            raise ValueError("The retain dataset is empty: give retained rows, or set retain_loss='none'.")
        self.records = records
        self.collator = collator
        self.batch_size = batch_size
        self.loss_type = loss
        self.original = original
        self.seed = seed

    def rows(self, step: int) -> list[int]:
        """The rows of batch number `step`."""
        return stream_rows(len(self.records), self.batch_size, step, self.seed)

    def prepare(self, step: int, device: torch.device) -> RetainBatch:
        """Collates batch number `step` and lets π_N predict it."""
        inputs = self.collator([self.records[row] for row in self.rows(step)])
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        if self.loss_type == "nll":
            return RetainBatch(inputs, None)
        assert self.original is not None
        with self.original() as model:
            return RetainBatch(inputs, completion_predictions(model, inputs))

    def __call__(self, model: nn.Module, batch: RetainBatch) -> Tensor:
        """The term: a float32 scalar in nats a token, averaged over records."""
        if batch.teacher is None:
            return -completion_mean(model, batch.inputs, "logps")
        return completion_mean(model, batch.inputs, "kl", teacher=batch.teacher)
