"""Where the time of a measurement goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Seconds:
    """Seconds by name; what is timed within something else counts for itself alone."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        """What was timed so far."""
        self._within = [0.0]

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Times the block, and adds it to what is there under the name."""
        start = time.perf_counter()
        self._within.append(0.0)
        try:
            yield
        finally:
            took, within = time.perf_counter() - start, self._within.pop()
            self._within[-1] += took
            self.found[name] = self.found.get(name, 0.0) + took - within
