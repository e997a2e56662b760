from pathlib import Path

import numpy as np
import pytest
import torch

import dareu.runs.memory
from dareu.runs.memory import PeakMemory

MEBIBYTE = 2**20
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells RssAnon")


@linux
def test_memory_held_at_the_end_counts():
    with PeakMemory() as memory:
        held = np.ones(64 * MEBIBYTE, dtype=np.uint8)
    assert memory.bytes is not None and 60 * MEBIBYTE < memory.bytes < 80 * MEBIBYTE
    del held


@linux
def test_memory_given_back_before_the_end_counts():
    with PeakMemory(interval=0.001) as memory:
        held = np.ones(64 * MEBIBYTE, dtype=np.uint8)
        for _ in range(1000):  # until the thread has looked
            if memory._peak - memory._start > 60 * MEBIBYTE:
                break
            held.sum()
        del held
    assert memory.bytes is not None and memory.bytes > 60 * MEBIBYTE


@linux
def test_a_mapped_file_does_not_count(tmp_path):
    np.ones(64 * MEBIBYTE, dtype=np.uint8).tofile(tmp_path / "file")
    with PeakMemory() as memory:
        mapped = np.memmap(tmp_path / "file", dtype=np.uint8, mode="r")
        assert mapped.sum() == 64 * MEBIBYTE
    assert memory.bytes is not None and memory.bytes < 16 * MEBIBYTE


def test_nothing_is_made_up_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(dareu.runs.memory, "_STATUS", tmp_path / "none")
    with PeakMemory() as memory:
        pass
    assert memory.bytes is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_counts_what_was_allocated_at_the_peak():
    held = torch.ones(16 * MEBIBYTE, dtype=torch.uint8, device="cuda")
    with PeakMemory("cuda") as memory:
        more = torch.ones(64 * MEBIBYTE, dtype=torch.uint8, device="cuda")
        del more
    assert memory.bytes is not None and memory.bytes >= 80 * MEBIBYTE
    with PeakMemory("cuda") as memory:
        pass
    assert memory.bytes is not None and held.numel() <= memory.bytes < 80 * MEBIBYTE
