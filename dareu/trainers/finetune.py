"""Plain fine-tuning on completions: the base model, the target, and the retrained control."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from dareu.models.forward import IGNORED_LABEL
from dareu.trainers._resuming import Resumable
from dareu.trainers.arguments import DevicePrecision

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass
class FinetuneConfig(DevicePrecision, TrainingArguments):  # type: ignore[misc]  # the types of bf16
    """`TrainingArguments`, with one addition for models trained from scratch."""

    induction_steps: int = field(
        default=0,
        metadata={
            "help": "During so many first steps, every fourth batch is a run of random tokens repeated three times. "
            "It teaches a model trained from scratch to copy what stands in its prompt. 0 for checkpoints."
        },
    )


class FinetuneTrainer(Resumable):
    """`transformers.Trainer` whose batches may be repeated random runs (`FinetuneConfig.induction_steps`)."""

    args: FinetuneConfig
    model: PreTrainedModel

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """The cross-entropy on completion tokens, or that of a repeated run."""
        step = self.state.global_step
        if model.training and step < self.args.induction_steps and step % 4 == 3:
            draw = step * self.accelerator.num_processes + self.accelerator.process_index
            generator = torch.Generator().manual_seed(self.args.seed + draw)
            inputs = repeated_runs(inputs["input_ids"], self.model.config.vocab_size, generator)
            if kwargs.get("num_items_in_batch") is not None:
                # The Trainer expects a sum over this batch divided by the items of the whole accumulation.
                items = (inputs["labels"] != IGNORED_LABEL).sum()
                if self.args.average_tokens_across_devices:  # and so the loss times the number of processes
                    items = self.accelerator.gather(items).sum()
                kwargs["num_items_in_batch"] = items * self.current_gradient_accumulation_steps
        loss: Tensor | tuple[Tensor, Any] = super().compute_loss(model, inputs, *args, **kwargs)
        return loss


def repeated_runs(like: Tensor, vocab_size: int, generator: torch.Generator, repeats: int = 3) -> dict[str, Tensor]:
    """Rows of random tokens, each a run said `repeats` times over; only what can be copied bears a label.

    Args:
        like: A tensor of shape (B, T), T ≥ 2·`repeats`, that gives the batch size, the length and the device.
        vocab_size: Tokens are drawn from all but the first three, which are special.
        generator: Draws the tokens.
        repeats: How often a run is said.

    Returns:
        `input_ids`, `attention_mask` and `labels`, int64, of shape (B, `repeats`·(T // `repeats`)).
    """
    batch_size, length = like.shape
    run = torch.randint(3, vocab_size, (batch_size, length // repeats), generator=generator)
    tokens = run.repeat(1, repeats).to(like.device)
    labels = tokens.clone()
    labels[:, : run.shape[1]] = IGNORED_LABEL
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
