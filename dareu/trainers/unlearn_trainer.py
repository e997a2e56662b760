"""Loss-based unlearning over forget batches, with the same mask, reference and retain term as DareU."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from dareu.data.encoding import CompletionCollator, encode_dataset
from dareu.models import context_length
from dareu.options import as_mapping
from dareu.trainers.logprobs import completion_logits
from dareu.trainers.unlearning import (
    StopWhenForgotten,
    UnlearningArguments,
    UnlearningMixin,
    Validate,
    load_policy,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from dareu.masks import WeightMask

#: A pure function of tensors it names as parameters, and of options with defaults; gives a scalar.
ForgetLoss = Callable[..., Tensor]

#: What a forget loss may ask for: sums over each record's answer tokens, (B,) float32.
TENSORS = ("logps", "ref_logps", "lengths")


@dataclass
class UnlearnConfig(UnlearningArguments, TrainingArguments):
    """`TrainingArguments` with the options that all unlearning trainers share, and the weight of the forget loss."""

    forget_coef: float = field(default=1.0, metadata={"help": "Weight of the forget loss."})
    loss_kwargs: dict[str, Any] | str | None = field(
        default_factory=dict, metadata={"help": "Options of the loss, such as {beta: 0.1}."}
    )
    bf16: bool | None = field(  # type: ignore[assignment]  # as in GRPOConfig, None until the device is looked at
        default=None, metadata={"help": "Compute in bfloat16; by default where the GPU has it."}
    )

    # `TrainingArguments` turns JSON strings from the command line into dicts for these.
    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "loss_kwargs"]  # noqa: RUF012  # as in the base

    def __post_init__(self) -> None:
        if self.bf16 is None:
            self.bf16 = not self.fp16 and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        super().__post_init__()  # type: ignore[no-untyped-call]


class UnlearnTrainer(UnlearningMixin, Trainer):
    """Minimises forget_coef · forget loss + retain_coef · retain term.

    Args:
        model: The target: a path, a hub id or a loaded model. It is trained in place.
        forget_loss: A pure function; each parameter without a default names a tensor of `TENSORS`.
        args: Options; `loss_kwargs` go to the loss.
        train_dataset: The forget rows, with `prompt` and `completion`.
        retain_dataset: The retained rows.
        mask: The weights that may move; None: all.
        processing_class: The tokenizer; loaded with the model where `model` is a string.
        peft_config: Trains a fresh adapter in place of the weights.
        validate: Measures the model for early stopping; see `UnlearningArguments`.
        callbacks: More Trainer callbacks.

    Raises:
        ValueError: Before any training, where data, mask, options, loss and model do not go together.
    """

    # The loss is a mean over the micro-batch: the Trainer divides it by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        forget_loss: ForgetLoss,
        args: UnlearnConfig,
        train_dataset: Dataset,
        *,
        retain_dataset: Dataset | None = None,
        mask: WeightMask | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        validate: Validate | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        model, processing_class = load_policy(model, processing_class, peft_config, args.seed)
        self.forget_loss = forget_loss
        self.loss_kwargs: dict[str, Any] = as_mapping("loss_kwargs", args.loss_kwargs)
        self.needs = needed_tensors(forget_loss, self.loss_kwargs)
        args.remove_unused_columns = False
        self._set_up(
            model,
            processing_class,
            args,
            retain_dataset=retain_dataset,
            mask=mask,
            fresh_adapter=peft_config is not None,
            needs_reference="ref_logps" in self.needs,
            validate=validate,
        )
        collator = CompletionCollator(processing_class)
        records = encode_dataset(train_dataset, processing_class, max_length=context_length(model))
        super().__init__(
            model,
            args,
            train_dataset=[{"record": record, "row": row} for row, record in enumerate(records)],
            data_collator=lambda items: _collate(collator, items),
            processing_class=processing_class,
            callbacks=callbacks,
        )
        self._records, self._collator = records, collator
        self._ref_logps: Tensor | None = None
        if validate is not None:
            self.add_callback(StopWhenForgotten(validate, self._measured))

    def _reference_logps(self) -> Tensor:
        """π_N's log-probabilities of the forget answers, which are constant: computed once, float32 (rows,).

        The first step asks for them, since a model that is sharded runs only once training has begun.
        """
        if self._ref_logps is None:
            assert self.reference is not None
            parts, size = [], self.args.per_device_train_batch_size
            for start in range(0, len(self._records), size):
                batch = self._collator(self._records[start : start + size])
                batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
                with self.reference() as model, self.accelerator.autocast():
                    scored = completion_logits(model, batch)
                parts.append(scored.row_sum(scored.logps()))
            self._ref_logps = torch.cat(parts)
        return self._ref_logps

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The weighted sum of forget loss and retain term on one micro-batch."""
        batch = self._prepare_retain()
        ref_logps = self._reference_logps()[inputs["row"]] if "ref_logps" in self.needs else None
        scored = completion_logits(model, inputs)
        tensors = {"logps": scored.row_sum(scored.logps()), "lengths": scored.lengths(), "ref_logps": ref_logps}
        forget = self.forget_loss(**{name: tensors[name] for name in self.needs}, **self.loss_kwargs)
        loss: Tensor = self.args.forget_coef * forget
        logged = {"forget_loss": forget}
        if batch is not None:
            penalty = self._retain_penalty(model, batch)
            logged[f"retain_{self.args.retain_loss}"] = penalty / self.args.retain_coef
            loss = loss + penalty
        if model.training:
            for name, value in logged.items():
                mean = self.accelerator.gather(value.detach()).mean().item()
                self._measured.setdefault(name, []).append(mean)
        return loss


def needed_tensors(loss: ForgetLoss, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The tensors a loss names as parameters without a default.

    Raises:
        ValueError: The loss asks for a tensor that is not there, or an option is none of its parameters.
    """
    parameters = inspect.signature(loss).parameters
    needs = tuple(name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty)
    unknown = [name for name in needs if name not in TENSORS]
    if unknown:
        raise ValueError(f"The loss asks for {', '.join(unknown)}: there are {', '.join(TENSORS)}.")
    foreign = [name for name in options if name not in parameters or name in needs]
    if foreign:
        choices = ", ".join(name for name in parameters if name not in needs) or "none"
        raise ValueError(f"The loss has no option {', '.join(foreign)}: its options are {choices}.")
    return needs


def _collate(collator: CompletionCollator, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = collator([item["record"] for item in items])
    batch["row"] = torch.tensor([item["row"] for item in items])
    return batch
