"""The retain term that every method shares: what holds the model in place on retained records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dareu.data.encoding import CompletionCollator, EncodedRecord
from dareu.models.forward import completion_mean, completion_predictions, completion_states
from dareu.models.tiles import Predictions
from dareu.trainers.original import Original

logger = logging.getLogger(__name__)

RetainLoss = Literal["kl", "nll", "none"]

#: What remembered hidden states may take of the host's memory.
MOST_BYTES = 2**28


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


class _Heard(NamedTuple):
    """What π_N says of all records."""

    states: dict[int, Tensor]
    """By row its hidden states in the answer tokens' places, in the host's memory."""
    head: Predictions

    def predictions(self, rows: Sequence[int], device: torch.device) -> Predictions:
        """Of a batch of these rows."""
        return self.head._replace(inputs=torch.cat([self.states[row] for row in rows]).to(device))


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
        self.original = original if loss == "kl" else None  # a copy of the whole model
        self.seed = seed
        self._heard: _Heard | None = None
        self._listens = loss == "kl"
        """Whether it is still to be seen if π_N shall be asked about all records at once."""

    def _listen(self, device: torch.device) -> None:
        """Asks π_N about all records, in batches that no step changes: a resumed run hears the same to the bit."""
        assert self.original is not None
        with self.original() as model:
            config: Any = getattr(model, "module", model).config  # a DeepSpeed engine's own is another thing
            number = sum(len(record.completion_ids) for record in self.records)
            if 4 * number * config.get_text_config().hidden_size > MOST_BYTES:
                return
            lengths = [len(record.prompt_ids) + len(record.completion_ids) for record in self.records]
            order = sorted(range(len(lengths)), key=lengths.__getitem__)
            parts = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
            try:
                states, head = completion_states(model, (self._collated(rows, device) for rows in parts))
            except NotImplementedError as error:
                logger.debug("The original model is asked at every step, for %s.", error)
                return
        self._heard = _Heard({row: of_row.cpu() for row, of_row in zip(order, states, strict=True)}, head)
        self.original = None  # a copy of the whole model, unless others ask it too

    def _collated(self, rows: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        inputs = self.collator([self.records[row] for row in rows])
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def rows(self, step: int) -> list[int]:
        """The rows of batch number `step`."""
        return stream_rows(len(self.records), self.batch_size, step, self.seed)

    def prepare(self, step: int, device: torch.device, num_batches: int = 1) -> RetainBatch:
        """Collates batch number `step`, with what π_N predicts on it.

        Args:
            step: Counted from 0.
            device: Where models compute.
            num_batches: Those that this process prepares in all. Where they hold every record twice or more, π_N is
                asked once about each, and its hidden states wait in the host's memory, up to `MOST_BYTES` of them.
        """
        if self._listens:
            self._listens = False
            if num_batches * self.batch_size >= 2 * len(self.records):
                self._listen(device)
        rows = self.rows(step)
        inputs = self._collated(rows, device)
        if self.loss_type == "nll":
            return RetainBatch(inputs, None)
        if self._heard is not None:
            return RetainBatch(inputs, self._heard.predictions(rows, device))
        assert self.original is not None
        with self.original() as model:
            return RetainBatch(inputs, completion_predictions(model, inputs))

    def __call__(self, model: nn.Module, batch: RetainBatch) -> Tensor:
        """The term: a float32 scalar in nats a token, averaged over records."""
        if batch.teacher is None:
            return -completion_mean(model, batch.inputs, "logps")
        return completion_mean(model, batch.inputs, "kl", teacher=batch.teacher)
