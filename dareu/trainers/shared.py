"""What every unlearning trainer shares: mask, π_N and retain term, and the model that it loads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType, broadcast_object_list
from peft import PeftModel
from torch import Tensor, nn

from dareu.masks import MaskedAdamW
from dareu.masks.zero import ZeroMaskedAdamW
from dareu.models import context_length, load_model, load_tokenizer
from dareu.models.generation import list_end_ids
from dareu.trainers._best_state import BestState
from dareu.trainers._coverage import Coverage
from dareu.trainers._dual import Dual
from dareu.trainers._fresh_adapter import with_fresh_adapter
from dareu.trainers._moved import Moved
from dareu.trainers._resuming import Resumable
from dareu.trainers._stopping import Validate, Validation
from dareu.trainers.prepared import Prepared
from dareu.trainers.processes import check_started, load_whole_weights
from dareu.trainers.retain import RetainBatch
from dareu.weights import fingerprint

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)


class SharedMixin(Resumable):
    """Mask, π_N, retain term and validation for a `transformers.Trainer`; stands before it in the bases.

    Args:
        *args: The Trainer's.
        prepared: What `dareu.trainers.prepared.prepare` made of the model, before this is built.
        validate: Measures the model for early stopping.
        **kwargs: The Trainer's.
    """

    args: Any  # a TrainingArguments with SharedArguments
    model: nn.Module
    train_dataset: Any

    def __init__(self, *args: Any, prepared: Prepared, validate: Validate | None, **kwargs: Any) -> None:
        self.mask, self.original, self._retain = prepared
        self._measured: dict[str, list[float]] = {}
        super().__init__(*args, **kwargs)
        self._moved = Moved()
        self.add_callback(self._moved)  # before validation puts the best state back
        self.add_callback(Coverage(self.rows_reached))
        self.best: BestState | None = None
        if validate is not None:
            if self.args.deepspeed_plugin is None:
                self.best = BestState(self.mask)
            else:
                logger.warning(
                    "DeepSpeed lets nobody write to the weights: training ends with its last state, "
                    "and early_stopping_patience does not stop it."
                )
            self.add_callback(Validation(validate, self._measured, self.best))
        self._dual = None if self.args.retain_kl_target is None else Dual(self.args.retain_kl_target)

    def _prepare_retain(self) -> RetainBatch | None:
        """The retained batch of this micro-step; call it before the student's forward."""
        if self._retain is None or not self.model.training:
            return None
        step = self.micro_steps * self.accelerator.num_processes + self.accelerator.process_index
        with self.accelerator.autocast():  # as the trained model's forward
            number = self.state.max_steps * self.args.gradient_accumulation_steps
            return self._retain.prepare(step, self.accelerator.device, number)

    def _retain_penalty(self, model: nn.Module, batch: RetainBatch, *, alone: bool = False) -> tuple[Tensor, Tensor]:
        """The weighted retain term, on the wrapped model, and the bare one without its gradient.

        Its backward is done at once, and what is returned is a constant: what autograd keeps of the retained rows is
        gone before the policy's forward, and its gradients are added to the parameters' one after the other. Call it
        before that forward.

        Args:
            model: The wrapped model.
            batch: What `_prepare_retain` gave.
            alone: Whether there is no other loss to be differentiated, so that the backward is the Trainer's.
        """
        assert self._retain is not None
        term, weight = self._retain(model, batch), float(self.args.retain_coef)
        if self._dual is not None:
            self._dual.see(float(self.accelerator.gather(term.detach()).mean()))
            weight *= self._dual.multiplier
        penalty = weight * term
        # DeepSpeed makes its step in the backward
        if alone or self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return penalty, term.detach()
        # A backward is in the precision of its forward, whatever the context of the loss
        with torch.autocast(self.accelerator.device.type, enabled=False):
            self.accelerator.backward(penalty / self.current_gradient_accumulation_steps)
        return penalty.detach(), term.detach()

    def rows_reached(self, max_steps: int) -> tuple[int, int]:
        """How many forget rows so many updates look at, and how many there are."""
        rows, an_update = len(self.train_dataset), self.args.train_batch_size * self.args.gradient_accumulation_steps
        return min(rows, max_steps * an_update * self.args.world_size), rows

    def nothing_learnt(self) -> str | None:
        """Why the training that has ended cannot have learnt anything, in a clause; None: it may have."""
        known = self._moved.moved is not None
        moved = self.accelerator.gather(torch.tensor([bool(self._moved.moved)], device=self.accelerator.device))
        return "no weight has moved" if known and not moved.any() else None

    def identity(self) -> str:
        """The fingerprint of the model as the main process holds it; asked for before training only."""
        if self.mask is not None:
            return self.mask.fingerprint  # the model's, as was verified
        return str(broadcast_object_list([fingerprint(self.model) if self.accelerator.is_main_process else ""])[0])

    def create_accelerator_and_postprocess(self) -> None:
        """Makes the accelerator, and refuses one that is less than the launcher asked for."""
        super().create_accelerator_and_postprocess()
        check_started(self.accelerator)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """`MaskedAdamW` with the Trainer's settings under a mask, the Trainer's own optimizer without one."""
        if self.mask is None or self.optimizer is not None:
            optimizer: torch.optim.Optimizer = super().create_optimizer(model)
            return optimizer
        opt_model = self.model if model is None else model
        decaying = set(self.get_decay_parameter_names(opt_model))
        named = [(name, parameter) for name, parameter in opt_model.named_parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in named if p[0] in decaying], "weight_decay": self.args.weight_decay},
            {"params": [p for p in named if p[0] not in decaying], "weight_decay": 0.0},
        ]
        make = MaskedAdamW if self.args.deepspeed_plugin is None else ZeroMaskedAdamW
        self.optimizer = make(
            [group for group in groups if group["params"]],  # an empty one would have no names
            self.mask,
            lr=self.args.learning_rate,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
        )
        return self.optimizer

    def _note(self, model: nn.Module, terms: Mapping[str, Tensor]) -> None:
        """Keeps scalar terms of a loss for the log, averaged over processes, while the model is in training."""
        if model.training:
            for name, value in terms.items():
                mean = self.accelerator.gather(value.detach()).mean().item()
                self._measured.setdefault(name, []).append(mean)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Makes the Trainer's scheduler; DeepSpeed has just taken the optimizer, and no checkpoint was read yet."""
        zero = getattr(self.optimizer, "optimizer", None)  # in accelerate's wrapper
        masked = getattr(zero, "optimizer", None)
        if isinstance(masked, ZeroMaskedAdamW):
            masked.take_pieces(zero)
        return super().create_scheduler(num_training_steps, optimizer)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Logs what the Trainer does, with the means of what was measured since the last time."""
        logs.update({name: sum(values) / len(values) for name, values in self._measured.items()})
        self._measured.clear()
        super().log(logs, *args, **kwargs)

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """A step whose frozen gradients are dropped before the Trainer takes the norm of the rest."""
        loss: Tensor = super().training_step(model, *args, **kwargs)
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # in accelerate's wrapper
        if isinstance(optimizer, MaskedAdamW) and self.accelerator.sync_gradients:
            optimizer.drop_frozen_gradients()
        if self._dual is not None and self.accelerator.sync_gradients:
            self._measured.setdefault("retain_multiplier", []).append(self._dual.multiplier)
            self._dual.step()
        return loss

    def _progress_so_far(self) -> dict[str, Any]:
        return super()._progress_so_far() | ({} if self._dual is None else {"retain_multiplier": self._dual.multiplier})

    def _save_extra(self, folder: str) -> None:
        super()._save_extra(folder)
        self._moved.save(folder, self.accelerator.process_index, self.accelerator.num_processes)
        if self.best is not None:
            self.best.save(folder, self.accelerator.process_index)

    def _load_extra(self, folder: str) -> None:
        super()._load_extra(folder)
        self._moved.load(folder, self.accelerator.process_index, self.accelerator.num_processes)
        if self.best is not None:
            self.best.load(folder, self.accelerator.process_index)
        if self._dual is not None and self._progress is not None:
            self._dual.multiplier = self._progress.get("retain_multiplier", 1.0)


def load_policy(
    model: str | PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | None,
    peft_config: PeftConfig | None,
    seed: int,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """The model to train with its tokenizer: loaded where it is a name, given a fresh adapter where one is asked for.

    A loaded model with a trained adapter trains on that adapter.

    Raises:
        ValueError: A loaded model comes without its tokenizer or is frozen, nothing can be loaded by the name, or a
            fresh adapter would not leave the model as it is.
    """
    if isinstance(model, str):
        tokenizer = tokenizer or load_tokenizer(model)
        load_whole_weights()
        model = load_model(model)
    if tokenizer is None:
        raise ValueError("The tokenizer of a loaded model is missing: give it as processing_class.")
    list_end_ids(model, tokenizer)
    if peft_config is not None:
        if isinstance(model, PeftModel):
            raise ValueError(
                "The model has an adapter already: merge it (dareu.models.merge_adapter) before a fresh one is "
                "added, or leave peft_config out to train on."
            )
        model = with_fresh_adapter(model, peft_config, seed)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "No weight of the model can be trained: load an adapter by dareu.models.load_adapter, or with "
            "is_trainable=True, and let other models require gradients."
        )
    return model, tokenizer


def check_room(prompts: Sequence[Sequence[int]], room: int, model: PreTrainedModel | PeftModel) -> None:
    """Refuses prompts that leave no room for a completion.

    Args:
        prompts: Token ids of each row's prompt.
        room: Tokens of the longest completion.
        model: Its config names the context length.

    Raises:
        ValueError: Names the first row, its length and the limit.
    """
    limit = context_length(model)
    if limit is None:
        return
    for row, ids in enumerate(prompts):
        if len(ids) + room > limit:
            raise ValueError(
                f"Row {row}: the prompt has {len(ids)} tokens and {room} are kept for the completion, but the model "
                f"takes {limit}: shorten the prompt or max_completion_length."
            )
