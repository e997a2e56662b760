"""Validation on the way: when a training stops, and which of its states it ends with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from dareu.trainers._best_state import BestState
from dareu.trainers.processes import Measuring, measured_alike

logger = logging.getLogger(__name__)

#: Measures the model in training. `forget_attribution` and `fluency_nll` are what a training may stop at; `gap`, lower
#: being better, is what the best state is chosen by.
Validate = Measuring


class Validation(TrainerCallback):
    """Measures the model every `validation_steps` updates, stops as the arguments say, and keeps the best state.

    It goes by the judge, facts, fluency and retained answers, never by the reward, which a policy learns to please.

    Args:
        validate: Measures the model. Where it gives no `gap`, training ends with the last state.
        measured: Takes what it measures, for the log.
        best: Keeps the best state; None: nobody may write to the weights.
    """

    def __init__(self, validate: Validate, measured: dict[str, list[float]], best: BestState | None) -> None:
        self.validate = validate
        self.measured = measured
        self.best = best

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Takes the model before the first update for the best state there is."""
        if args.validation_steps and self.best is not None and not state.global_step:
            numbers = self._numbers(kwargs["model"])
            if "gap" in numbers:
                self.best.keep(kwargs["model"], numbers["gap"], 0)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Validates after every `validation_steps`-th update, and after the last one."""
        last = state.global_step >= state.max_steps
        if not args.validation_steps or (state.global_step % args.validation_steps and not last):
            return control
        numbers, step = self._numbers(kwargs["model"]), state.global_step
        for name, value in numbers.items():
            self.measured.setdefault(f"validation/{name}", []).append(value)
        broken = args.stop_fluency_nll is not None and numbers["fluency_nll"] >= args.stop_fluency_nll
        best = self.best if "gap" in numbers else None
        if best is not None and not broken and best.beaten_by(numbers["gap"]):
            best.keep(kwargs["model"], numbers["gap"], step)
        if reason := self._reason(args, numbers, step, broken):
            logger.info("Stopping after %d updates: %s (%s).", step, reason, numbers)
            control.should_training_stop = True
        return control

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Gives the model its best state."""
        if self.best is None or self.best.gap is None:
            return
        self.best.restore(kwargs["model"])
        if self.best.step:
            logger.info("The best state is that after %d of %d updates.", self.best.step, state.global_step)
        else:
            logger.warning(
                "No state that was validated is better than the model before training, which is what is left: nothing "
                "has been forgotten. Look at the log's validation/ numbers; another learning rate may help."
            )

    def _numbers(self, model: nn.Module) -> dict[str, float]:
        return measured_alike(self.validate, model, "Validation")

    def _reason(self, args: Any, numbers: Mapping[str, float], step: int, broken: bool) -> str | None:
        """Why training stops here, if it does."""
        limit = args.stop_forget_attribution
        if limit is not None and numbers["forget_attribution"] <= limit:
            return "the judge no longer finds the owners"
        if broken:
            return "the answers lose their fluency"
        patience = args.early_stopping_patience
        if patience is not None and self.best is not None and step - self.best.step >= patience * args.validation_steps:
            return f"{patience} validations in a row were no better"
        return None
