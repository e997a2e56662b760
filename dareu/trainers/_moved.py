"""Whether a training has moved any weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerState

_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}


class Moved(TrainerCallback):
    """Compares the bits of the trained weights before the first update and after the last; see `moved`."""

    def __init__(self) -> None:
        self._before: dict[str, int] | None = None
        self._loaded: dict[str, int] | None = None
        self.moved: bool | None = None
        """Whether a weight of this process has another value; None before the end, and where that is not known."""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Takes the sums, or those that the checkpoint holds with which training goes on."""
        self._before, self._loaded = self._loaded if state.global_step else _sums(kwargs["model"]), None
        self.moved = None

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Compares them."""
        self.moved = None if self._before is None else _sums(kwargs["model"]) != self._before

    def save(self, folder: str, process: int, processes: int) -> None:
        """Writes this process's sums into a checkpoint."""
        if self._before is not None:
            _file(folder, process, processes).write_text(json.dumps(self._before), encoding="utf-8")

    def load(self, folder: str, process: int, processes: int) -> None:
        """Reads them, where as many processes wrote them: others have other shards."""
        path = _file(folder, process, processes)
        self._loaded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _file(folder: str, process: int, processes: int) -> Path:
    return Path(folder, f"before-{process}-of-{processes}.json")


def _sums(model: nn.Module) -> dict[str, int]:
    """Of each trained parameter the sum of its bits as whole numbers; of a sharded one, of this process's shard."""
    sums = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            local = getattr(parameter, "ds_tensor", parameter).detach()  # of ZeRO-3, whose parameters are empty
            local = local.to_local() if isinstance(local, DTensor) else local
            sums[name] = int(local.contiguous().view(_BITS[local.element_size()]).sum(dtype=torch.int64))
    return sums
