"""What a trainer logs, kept as lines of JSON."""

import math
import os
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dareu.files import append_jsonl


class MetricsLog(TrainerCallback):
    """Appends each log of a trainer to ``path`` as one JSON object with its ``step`` and ``epoch``.

    NaN and infinity, which JSON does not have, become null. Only the main process writes. A run that goes on
    from a checkpoint logs the steps after it once more: the last line of a step is the one that counts.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer with the numbers that it logs."""
        if state.is_world_process_zero and logs:
            finite = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in logs.items()
            }
            append_jsonl(self.path, {"step": state.global_step, "epoch": state.epoch} | finite)
