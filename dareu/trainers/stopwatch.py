"""The seconds of a piece of work that may be interrupted and gone on with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class Stopwatch:
    """Counts the seconds of the block that it opens: `with Stopwatch() as stopwatch: ...`.

    Attributes:
        before: Seconds that were counted earlier, such as in the stretches before a training was interrupted.
    """

    def __init__(self) -> None:
        self.before = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """All that was counted so far."""
        return self.before + (0.0 if self._since is None else time.perf_counter() - self._since)

    def __enter__(self) -> Self:
        self._since = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.before, self._since = self.seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What runs within this block is not counted; it may also stand outside of the counted one."""
        running = self._since is not None
        self.before, self._since = self.seconds, None
        try:
            yield
        finally:
            if running:
                self._since = time.perf_counter()
