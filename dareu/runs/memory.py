"""The peak memory of a piece of work."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Measures the peak memory of the block that it opens: `with PeakMemory(device) as memory: ...`.

    On the CPU it is the peak of the process's anonymous resident memory (`RssAnon`: what the process itself
    wrote, without the files that it maps) above its level at the start of the block, read every `interval`
    seconds by a thread; on CUDA it is `torch.cuda.max_memory_allocated` of the block, weights included. One
    measurement a process at a time, each in a process of its own, since freed memory is not always given
    back.

    Attributes:
        bytes: The peak, known once the block has ended; `None` before that, and on the CPU of a system
            without `/proc/self/status` (that is, other than Linux).
    """

    def __init__(self, device: torch.device | str = "cpu", *, interval: float = 0.01) -> None:
        self.bytes: int | None = None
        self._device = torch.device(device)
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif _STATUS.exists():
            self._start = self._peak = _anonymous_resident_bytes()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        elif self._thread.is_alive():
            self._ended.set()
            self._thread.join()
            self._peak = max(self._peak, _anonymous_resident_bytes())
            self.bytes = self._peak - self._start

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            self._peak = max(self._peak, _anonymous_resident_bytes())


def _anonymous_resident_bytes() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024  # the kernel writes kB and means KiB
    raise AssertionError("Linux has listed RssAnon in /proc/self/status since 4.5")
