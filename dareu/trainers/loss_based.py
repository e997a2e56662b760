"""Loss-based unlearning over forget batches, with the same mask, original model and retain term as DareU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from dareu.data.encoding import CompletionCollator, EncodedRecord, encode_dataset
from dareu.data.records import text_of
from dareu.data.refusals import load_refusals, refuse
from dareu.models import context_length
from dareu.models.forward import completion_logits, completion_predictions, completion_terms
from dareu.models.tiles import Predictions
from dareu.plugins import needed_parameters
from dareu.trainers._alternates import UNINFORMED, column_of_alternates, drawn_alternates
from dareu.trainers._forget_tensors import (
    ALTERNATE,
    ANSWER,
    BESIDE,
    LOGITS,
    REF_LOGITS,
    REFUSAL,
    STORED,
    ForgetLoss,
    invented,
    try_loss,
)
from dareu.trainers._original_logps import original_logps
from dareu.trainers._uninformed import Uninformed, check_survival
from dareu.trainers.arguments import SharedArguments
from dareu.trainers.prepared import Prepared, prepare
from dareu.trainers.shared import SharedMixin, load_policy
from dareu.values import READ, Reads, as_mapping

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from dareu.masks import WeightMask
    from dareu.trainers._stopping import Validate
    from dareu.trainers.processes import Measuring


@dataclass
class UnlearnConfig(SharedArguments, TrainingArguments):  # type: ignore[misc]  # the types of bf16
    """`TrainingArguments` with the options that all unlearning trainers share, and the weight of the forget loss."""

    forget_coef: float = field(default=1.0, metadata={"help": "Weight of the forget loss."})
    loss_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict, metadata={"help": "Options of the loss, such as {beta: 0.1}."}
    )
    refusals: Annotated[str | None, Reads(words=lambda: ("common",))] = field(
        default=None,
        metadata={"help": "What idk and dpo teach in place of the answers: 'common', or a text file with one a line."},
    )
    alternates: str | None = field(
        default=None,
        metadata={
            "help": "What altpo teaches in place of the answers: 'uninformed', answers of the base model that are "
            "drawn once, before training, or the column of the data that holds an alternate of each, or several."
        },
    )
    num_alternates: int = field(
        default=1, metadata={"help": "Alternates of each answer; each is a record of its own with the answer."}
    )
    max_completion_length: int = field(
        default=128, metadata={"help": "Most tokens of an alternate that the base model draws."}
    )
    original_cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "The folder that keeps the original model's log-probabilities and the base model's answers, known "
            "by their content; default: a part of the output folder. Runs with the same original may share it."
        },
    )

    # `TrainingArguments` turns JSON strings from the command line into dicts for these.
    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "loss_kwargs"]  # noqa: RUF012  # as in the base

    def check(self) -> None:
        """Raises `ValueError` for options that cannot be."""
        super().check()
        for name in ("num_alternates", "max_completion_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1.")
        if not (math.isfinite(self.forget_coef) and self.forget_coef >= 0):
            raise ValueError(f"forget_coef is {self.forget_coef}: give a number ≥ 0.")


class UnlearnTrainer(SharedMixin, Trainer):
    """Minimises forget_coef · forget loss + retain_coef · retain term.

    Args:
        model: The target: a path, a hub id or a loaded model. It is trained in place.
        forget_loss: A pure function; each parameter without a default names a tensor of `invented_tensors`.
        args: Options; `loss_kwargs` go to the loss.
        train_dataset: The forget rows, with `prompt` and `completion`.
        retain_dataset: The retained rows.
        base_model: The checkpoint that the target was fine-tuned from, for losses that take alternates of it.
        base_tokenizer: Its tokenizer; default: that of the model.
        mask: The weights that may move; None: all.
        processing_class: The tokenizer; loaded with the model where `model` is a string.
        peft_config: Trains a fresh adapter in place of the weights.
        validate: Measures the model for early stopping; see `SharedArguments`.
        eval_metrics: Measures the model where `eval_strategy` says; see `Resumable`.
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
        base_model: PreTrainedModel | None = None,
        base_tokenizer: PreTrainedTokenizerBase | None = None,
        mask: WeightMask | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        validate: Validate | None = None,
        eval_metrics: Measuring | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        if eval_metrics is None and args.eval_strategy != "no":
            raise ValueError("eval_strategy needs eval_metrics, for there is no loss of rows to evaluate: give both.")
        if not len(train_dataset):
            raise ValueError("There are no forget rows: give at least one.")
        self.forget_loss = forget_loss
        self.loss_kwargs: dict[str, Any] = as_mapping("loss_kwargs", args.loss_kwargs)
        self.needs = self.needed_tensors(forget_loss, args)
        refusals = None if args.refusals is None else load_refusals(args.refusals)
        model, processing_class = load_policy(model, processing_class, peft_config, args.seed)
        tensors = self.invented_tensors(model.config.get_text_config().vocab_size)
        try_loss(forget_loss, {name: tensors[name] for name in self.needs}, self.loss_kwargs)
        args.remove_unused_columns = False
        prepared = self.prepare(
            model,
            processing_class,
            args,
            retain_dataset=retain_dataset,
            mask=mask,
            fresh_adapter=peft_config is not None,
            needs_original=not {*STORED, *BESIDE, REF_LOGITS}.isdisjoint(self.needs),
            validate=validate,
            accelerator=lambda: self.accelerator,
        )
        collator = CompletionCollator(processing_class)
        limit = context_length(model)
        records = encode_dataset(train_dataset, processing_class, max_length=limit)
        instead: dict[str, list[EncodedRecord]] = {}
        if refusals is not None:
            try:
                refused = encode_dataset(refuse(train_dataset, refusals, args.seed), processing_class, max_length=limit)
            except ValueError as error:
                raise ValueError(f"With a refusal in place of the answer: {error}") from error
            instead["refusal"] = refused
        self._draw: Callable[[], list[EncodedRecord | None]] | None = None
        if args.alternates == UNINFORMED:
            if base_model is None:
                raise ValueError(
                    "alternates are to be drawn from the uninformed model: give base_model, the checkpoint that the "
                    "target was fine-tuned from, or name a column of alternates."
                )
            base = Uninformed(base_model, base_tokenizer or processing_class)
            check_survival(base, [text_of(completion) for completion in train_dataset["completion"]])
            self._draw = partial(drawn_alternates, base, train_dataset, records, processing_class, args, limit)
        elif args.alternates is not None:
            number = args.num_alternates
            taught = column_of_alternates(train_dataset, processing_class, args.alternates, number, limit)
            instead["alternate"] = taught
        if args.alternates is not None:
            records = [record for record in records for _ in range(args.num_alternates)]
        super().__init__(
            model,
            args,
            train_dataset=_items(records),
            data_collator=lambda items: _collate(collator, items, instead),
            processing_class=processing_class,
            callbacks=callbacks,
            prepared=prepared,
            validate=validate,
            eval_metrics=eval_metrics,
        )
        self._records, self._instead, self._collator = records, instead, collator
        self._rows_a_batch = 1.0
        self._stored: dict[str, Tensor] = {}
        self._identity: dict[str, Any] = {}
        if not set(STORED).isdisjoint(self.needs):  # looked at now, since training moves and splits the weights
            precision = {"dtype": str(next(model.parameters()).dtype), "autocast": self.accelerator.mixed_precision}
            self._identity = {"weights": self.identity(), "device": self.accelerator.device.type, **precision}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains; what the uninformed model teaches is drawn first."""
        if self._draw is not None and "alternate" not in self._instead:
            drawn = list(zip(self._records, self._draw(), strict=True))
            self._records = [record for record, alternate in drawn if alternate is not None]
            self._instead["alternate"] = [alternate for _, alternate in drawn if alternate is not None]
            self.train_dataset = _items(self._records)
            self._draw = None  # which holds the base model
        return super().train(*args, **kwargs)

    def rows_reached(self, max_steps: int) -> tuple[int, int]:
        """As of every trainer; a loss that asks for nothing of the forget rows needs none."""
        reached, rows = super().rows_reached(max_steps)
        return (reached if self.needs else rows), rows

    @classmethod
    def invented_tensors(cls, vocab_size: int) -> dict[str, Tensor]:
        """What the forget loss may ask for, by name, of two invented records; see `dareu.trainers._forget_tensors`.

        Args:
            vocab_size: Tokens that the model knows.
        """
        return invented(vocab_size)

    @classmethod
    def prepare(
        cls,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        *,
        retain_dataset: Dataset | None,
        mask: WeightMask | None,
        fresh_adapter: bool,
        **options: Any,
    ) -> Prepared:
        """Settles what the trainer is built with; the arguments are those of `dareu.trainers.prepared.prepare`."""
        shared: dict[str, Any] = {"retain_dataset": retain_dataset, "mask": mask, "fresh_adapter": fresh_adapter}
        return prepare(model, tokenizer, args, **shared, **options)

    @classmethod
    def needed_tensors(cls, forget_loss: ForgetLoss, args: UnlearnConfig) -> tuple[str, ...]:
        """The tensors that a loss needs, once its options are known to go together.

        Raises:
            ValueError: The loss asks for a tensor that is not there, has no such option, needs refusals or has no use
                for them, or there is nothing that it would train.
        """
        options = as_mapping("loss_kwargs", args.loss_kwargs)
        needs = needed_parameters(forget_loss, cls.invented_tensors(vocab_size=2), options, "The loss")
        wanted = any("refusal" in name for name in needs)
        if wanted and args.refusals is None:
            raise ValueError("The loss needs refusals: set refusals to 'common', or to a text file with one a line.")
        if not wanted and args.refusals is not None:
            raise ValueError("refusals has no effect on this loss: leave it out.")
        taught = any("alternate" in name for name in needs)
        if taught and args.alternates is None:
            raise ValueError("The loss needs alternates: set alternates to 'uninformed', or to a column of the data.")
        if not taught and args.alternates is not None:
            raise ValueError("alternates has no effect on this loss: leave it out.")
        if not needs and (args.retain_loss != "nll" or args.retain_coef == 0):
            raise ValueError(
                "Without a forget loss only cross-entropy on retained rows trains anything: set retain_loss to 'nll' "
                "and retain_coef above 0."
            )
        return needs

    def _original_logps(self, name: str = "ref_logps") -> Tensor:
        """π_N's constant log-probabilities of the forget answers, or of what is taught instead: float32 (rows,).

        The first step asks for them, since a model that is sharded runs only once training has begun.
        """
        if name not in self._stored:
            assert self.original is not None
            self._stored[name] = original_logps(
                self.original,
                self._records if name == "ref_logps" else self._instead[name.split("_")[1]],
                self._collator,
                batch_size=self.args.per_device_train_batch_size,
                accelerator=self.accelerator,
                folder=self.args.original_cache_dir or str(Path(self.args.output_dir) / "original"),
                identity=self._identity,
            )
        return self._stored[name]

    def _forget_tensors(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """What the loss asks for and nothing else; π_N speaks before the model in training does."""
        needs = set(self.needs)
        tensors = {name: self._original_logps(name)[inputs["row"]] for name in STORED if name in needs}
        teacher = None
        if needs.isdisjoint((REF_LOGITS, *BESIDE)):
            self.original = None  # a copy of the whole model, and all that it was asked is kept
        else:
            assert self.original is not None
            with self.original() as original, self.accelerator.autocast():
                if REF_LOGITS in needs:
                    tensors[REF_LOGITS] = completion_logits(original, inputs).logits
                    teacher = Predictions(tensors[REF_LOGITS])
                else:
                    teacher = completion_predictions(original, inputs)
        names = ("logps",) if needs.isdisjoint(BESIDE) else ("logps", *BESIDE)
        if LOGITS in needs:
            whole = completion_logits(model, inputs)
            tensors[LOGITS] = whole.logits
            tensors |= {
                name: of(whole.terms(names, teacher)) for name, of in (ANSWER | BESIDE).items() if name in needs
            }
        elif not needs.isdisjoint(ANSWER | BESIDE):
            scored = completion_terms(model, inputs, names, teacher=teacher)
            tensors |= {name: of(scored) for name, of in (ANSWER | BESIDE).items() if name in needs}
        for kind, choices in (("refusal", REFUSAL), ("alternate", ALTERNATE)):
            if not needs.isdisjoint(choices):
                taught = completion_terms(model, inputs[kind])
                tensors |= {name: of(taught) for name, of in choices.items() if name in needs}
        return tensors

    def _forget(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The forget loss of those tensors that it asks for."""
        return self.forget_loss(**{name: tensors[name] for name in self.needs}, **self.loss_kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of an update, whose rows are counted."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        self._rows_a_batch = sum(len(batch["input_ids"]) for batch in batches) / max(1, len(batches))
        return batches, items

    def _share(self, inputs: Mapping[str, Tensor]) -> float:
        """What the mean over a micro-batch weighs in the mean over the micro-batches of its update.

        It is 1 but where they differ in size, as at the end of an epoch: every row of an update counts as much.
        """
        return len(inputs["input_ids"]) / self._rows_a_batch if self.model.training else 1.0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """The weighted sum of forget loss and retain term on one micro-batch."""
        batch = self._prepare_retain()
        retained = None if batch is None else self._retain_penalty(model, batch, alone=not self.needs)
        forget = self._forget(self._forget_tensors(model, inputs))
        loss: Tensor = self.args.forget_coef * self._share(inputs) * forget.to(self.accelerator.device)
        logged = {"forget_loss": forget} if self.needs else {}
        if retained is not None:
            penalty, logged[f"retain_{self.args.retain_loss}"] = retained
            loss = loss + penalty
        self._note(model, logged)
        return loss


def _items(records: Sequence[EncodedRecord]) -> list[dict[str, Any]]:
    return [{"record": record, "row": row} for row, record in enumerate(records)]


def _collate(
    collator: CompletionCollator, items: Sequence[dict[str, Any]], instead: Mapping[str, Sequence[EncodedRecord]]
) -> dict[str, Any]:
    """The padded answers, their `row` (B,), and padded what is taught in their place, `refusal` or `alternate`."""
    batch: dict[str, Any] = collator([item["record"] for item in items])
    batch["row"] = torch.tensor([item["row"] for item in items])
    for kind, taught in instead.items():
        batch[kind] = collator([taught[item["row"]] for item in items])
    return batch
