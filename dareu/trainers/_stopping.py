"""Early stopping on a validation judge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

logger = logging.getLogger(__name__)

#: Measures the model in training: names to numbers, `forget_attribution` and `fluency_nll` among them where known.
Validate = Callable[[nn.Module], Mapping[str, float]]


class StopWhenForgotten(TrainerCallback):
    """Measures the model every `validation_steps` updates and stops as the arguments say.

    It stops on the judge and on fluency, never on the reward, which a policy learns to please.
    """

    def __init__(self, validate: Validate, measured: dict[str, list[float]]) -> None:
        self.validate = validate
        self.measured = measured

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Validates after every `validation_steps`-th update."""
        if not args.validation_steps or state.global_step % args.validation_steps:
            return control
        # Every process measures, for a sharded model takes all of them; the main one's numbers count for all.
        measured: dict[str, float] = broadcast_object_list([dict(self.validate(kwargs["model"]))])[0]
        for name, value in measured.items():
            self.measured.setdefault(f"validation/{name}", []).append(float(value))
        forgotten = args.stop_forget_attribution is not None and (
            measured["forget_attribution"] <= args.stop_forget_attribution
        )
        broken = args.stop_fluency_nll is not None and measured["fluency_nll"] >= args.stop_fluency_nll
        forgotten, broken = broadcast_object_list([forgotten, broken])  # a limit may be measured, too
        if forgotten or broken:
            reason = "the judge no longer finds the owners" if forgotten else "the answers lose their fluency"
            logger.info("Stopping after %d updates: %s (%s).", state.global_step, reason, measured)
            control.should_training_stop = True
        return control
