"""TRL's table of completions, with what DareU knows of each, and every completion in it once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from trl import GRPOTrainer


class CompletionsTable(GRPOTrainer):
    """A `GRPOTrainer` whose table of completions says more; without `log_completions` there is none.

    TRL prints it, keeps it as Parquet, and sends it to the trackers that show tables.
    """

    _logs: dict[str, Any]

    def describe(self, **columns: Sequence[Any]) -> None:
        """Adds columns to the table; a reward's own of the same name go first.

        Args:
            columns: One value for each completion of this process.
        """
        if self.log_completions:
            for name, values in columns.items():
                self._pending_extra_logs.setdefault(name, list(values))

    def show_advantages(self, advantages: Tensor, mask: Tensor) -> None:
        """Puts the mean advantage of a completion's tokens in the place of TRL's, which knows sequence rewards alone.

        Args:
            advantages: (B, T) of the completions that were generated last.
            mask: (B, T), the tokens that count.
        """
        if self.log_completions:
            means = (advantages * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            shown, new = self._logs["advantages"], self.accelerator.gather(means).tolist()
            shown.extend(new)  # as many as it holds
            assert len(new) == shown.maxlen

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Logs what TRL does; the table is of the completions that came since the last time."""
        asked = self.log_completions
        self.log_completions = asked and len(self._logs["prompt"]) > 0
        try:
            super().log(logs, *args, **kwargs)
        finally:
            self.log_completions = asked
        self._logs["extra"].clear()  # the columns themselves, which the next completions may not have
        for part in self._logs.values():
            for column in part.values() if isinstance(part, dict) else [part]:
                column.clear()
