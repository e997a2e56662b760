"""What is settled before a trainer is built, on the untouched model: mask, π_N and retained rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from peft import PeftModel
from transformers import TrainingArguments

from dareu.data.encoding import CompletionCollator, encode_dataset
from dareu.models import context_length
from dareu.models.forward import give_positions
from dareu.models.padding import check_padding
from dareu.trainers.arguments import SharedArguments
from dareu.trainers.original import Original, original_policy
from dareu.trainers.processes import check_launch, place_frozen
from dareu.trainers.retain import RetainLoss, RetainTerm

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dareu.masks import WeightMask
    from dareu.trainers._stopping import Validate

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """What `SharedMixin` trains with."""

    mask: WeightMask | None
    """The weights that may move; None: all."""
    original: Original | None
    """Gives π_N, where more than the retain term asks for it."""
    retain: RetainTerm | None
    """The stream of retained batches; None: there is no retain term."""


def prepare(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    args: TrainingArguments,
    *,
    retain_dataset: Dataset | None,
    mask: WeightMask | None,
    fresh_adapter: bool,
    needs_original: bool,
    validate: Validate | None,
    accelerator: Callable[[], Accelerator],
) -> Prepared:
    """Checks options, mask and retained rows against the untouched model, and remembers π_N where it is needed.

    Args:
        model: The model that will be trained. Where it counts positions from the first token, it is taught each row's.
        tokenizer: Of the model.
        args: Options, with `SharedArguments` among their bases.
        retain_dataset: The retained rows.
        mask: The weights that may move; None: all.
        fresh_adapter: Whether the model's adapter has just been added and changes nothing yet.
        needs_original: Whether more than the retain term asks for π_N.
        validate: Measures the model for early stopping.
        accelerator: Gives the training's, once π_N is first asked for.

    Raises:
        ValueError: They do not go together.
    """
    assert isinstance(args, SharedArguments)
    args.check()
    check_launch(args, masked=mask is not None)
    if mask is not None:
        if isinstance(model, PeftModel):
            raise ValueError("A weight mask and LoRA exclude each other: drop the mask, or train the merged weights.")
        mask.verify(model)
        if args.optim not in ("adamw_torch", "adamw_torch_fused"):
            raise ValueError(f"Under a mask the optimizer is MaskedAdamW: leave optim as it is, not {args.optim}.")
    elif args.deepspeed_plugin is None and any(
        parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16)
        for parameter in model.parameters()
    ):
        logger.warning(
            "The weights are trained in 16 bits without a float32 copy, in which small updates round away: load "
            "them in float32, or train under a mask or with LoRA."
        )
    give_positions(model)
    check_padding(model)
    if args.load_best_model_at_end and args.validation_steps:
        raise ValueError(
            "validation_steps and load_best_model_at_end both choose the state that a training ends with: give one."
        )
    stops = (args.stop_forget_attribution, args.stop_fluency_nll, args.early_stopping_patience)
    asked = any(stop is not None for stop in stops) or args.validation_steps
    if asked and (validate is None or not args.validation_steps):
        raise ValueError(
            "validation_steps needs a judge, and stopping needs validation_steps: give all of them, or none."
        )
    retains = args.retain_loss != "none" and args.retain_coef > 0
    original = None
    if needs_original or (retains and args.retain_loss == "kl"):
        original = original_policy(
            model,
            # DeepSpeed lets nobody write to the weights.
            mask if args.deepspeed_plugin is None else None,
            fresh_adapter=fresh_adapter,
            place=lambda frozen: place_frozen(frozen, accelerator()),
        )
    others = original if needs_original else None
    if not retains:
        return Prepared(mask, others, None)
    if retain_dataset is None:
        raise ValueError("retain_loss needs a retain_dataset: give retained rows, or set retain_loss='none'.")
    loss: RetainLoss = args.retain_loss
    return Prepared(mask, others, retain_term(model, tokenizer, args, retain_dataset, loss, original))


def retain_term(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    args: TrainingArguments,
    dataset: Dataset,
    loss: RetainLoss,
    original: Original | None,
) -> RetainTerm:
    """The stream of retained batches, and π_N's word on them where the loss is a KL.

    Raises:
        ValueError: There are no rows, or one does not fit the model.
    """
    assert isinstance(args, SharedArguments)
    return RetainTerm(
        encode_dataset(dataset, tokenizer, max_length=context_length(model)),
        CompletionCollator(tokenizer),
        batch_size=args.retain_batch_size or args.per_device_train_batch_size,
        loss=loss,
        original=original,
        seed=args.seed,
    )
