"""What a trainer logs, kept as lines of JSON."""

import json
import math
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dareu.files import append_jsonl, atomic_file


class MetricsLog(TrainerCallback):
    """Appends each log of a trainer to `path` as one JSON object with its `step` and `epoch`.

    NaN and infinity, which JSON does not have, become null. Only the main process writes. A training that goes on
    from a checkpoint drops the lines that were written after it, and one that begins anew drops all.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the trainer when a checkpoint, if there is one, has been loaded."""
        if not state.is_world_process_zero or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if state.global_step and _is_before(line, state.global_step)]
        if len(kept) < len(lines):
            with atomic_file(self.path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

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


def _is_before(line: str, step: int) -> bool:
    """Whether a line was logged before the checkpoint of a step; the summary of a training comes after all of them."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:  # cut off
        return False
    return bool(entry["step"] <= step and "train_runtime" not in entry)
