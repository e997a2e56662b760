"""The best state of a training so far: what is trained of the model, kept in the host's memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dareu.files import atomic_file
from dareu.masks import WeightMask
from dareu.weights.entries import SelectedEntries, flat_part, local_part


class BestState:
    """A copy of the weights that may move, those that a mask selects where there is one, of the best state so far.

    Every process keeps its own part of a sharded model.

    Args:
        mask: The weights that may move; None: all that are trained.

    Attributes:
        gap: What the state was judged by, lower being better; None while there is none.
        step: Updates before it.
    """

    def __init__(self, mask: WeightMask | None) -> None:
        self._mask = mask
        self._entries: dict[str, SelectedEntries] = {}
        self._kept: dict[str, Tensor] = {}
        self.gap: float | None = None
        self.step = 0

    def beaten_by(self, gap: float) -> bool:
        """Whether a state is better than the one that is kept."""
        return self.gap is None or gap < self.gap

    def keep(self, model: nn.Module, gap: float, step: int) -> None:
        """Takes the model's state as the best one."""
        self.gap, self.step = gap, step
        for name, parameter in self._trained(model):
            entries, weight = self._selected(name, parameter), parameter.detach()
            taken = local_part(weight) if entries is None else entries.gather(weight, weight.dtype)
            self._kept[name] = taken.flatten().to("cpu", copy=True)

    def restore(self, model: nn.Module) -> None:
        """Gives the model the state that is kept; bits outside the mask stay as they are."""
        for name, parameter in self._trained(model):
            with flat_part(parameter.detach()) as flat:
                entries, values = self._selected(name, parameter), self._kept[name].to(flat.device)
                if entries is None:
                    flat.copy_(values)
                for piece in entries or ():
                    piece.put(flat, values[piece.state])

    def save(self, folder: str | os.PathLike[str], process: int) -> None:
        """Writes this process's part into a checkpoint folder, where any state is kept."""
        if self.gap is not None:
            said = json.dumps({"gap": self.gap, "step": self.step})
            with atomic_file(self._file(folder, process)) as temporary:
                save_file(self._kept, temporary, metadata={"best": said})

    def load(self, folder: str | os.PathLike[str], process: int) -> None:
        """Reads what `save` wrote; nothing where no state was kept.

        Raises:
            ValueError: The file is damaged.
        """
        path = self._file(folder, process)
        if not path.is_file():
            return
        try:
            with safe_open(path, framework="pt") as file:
                said = json.loads((file.metadata() or {})["best"])
                self._kept = {name: file.get_tensor(name) for name in file.keys()}  # it is no mapping
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no whole state ({error}): resume an earlier checkpoint.") from error
        self.gap, self.step = float(said["gap"]), int(said["step"])

    def _file(self, folder: str | os.PathLike[str], process: int) -> Path:
        return Path(folder) / f"best-{process}.safetensors"

    def _trained(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and (self._mask is None or name in self._mask):
                yield name, parameter

    def _selected(self, name: str, parameter: nn.Parameter) -> SelectedEntries | None:
        """What the mask selects of a weight, or of this process's part of it; None without a mask."""
        if self._mask is None:
            return None
        if name not in self._entries or not self._entries[name].fits(parameter):
            self._entries[name] = SelectedEntries(self._mask[name], parameter)
        return self._entries[name]
