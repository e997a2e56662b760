"""The mask of the weights that may change, and its file."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dareu.files import atomic_file
from dareu.weights.fingerprint import fingerprint, named_weights

_FORMAT = "dareu-weight-mask-1"


@dataclass(frozen=True, eq=False)
class WeightMask(Mapping[str, Tensor]):
    """Parameter name to bool tensor: true where training may change the entry.

    Attributes:
        masks: The bool tensors, each of its parameter's shape.
        density: The share of entries that was asked for, in (0, 1].
        score: What ranked the entries: a name of `dareu.masks.SCORES`, or of a plug-in the last part of its name.
        fingerprint: `fingerprint` of the weights that the mask was made for.
        gamma: Gamma of the score, where it has one.

    Raises:
        ValueError: If a tensor is not bool.
    """

    masks: Mapping[str, Tensor] = field(repr=False)
    density: float
    score: str
    fingerprint: str
    gamma: float | None = None

    def __post_init__(self) -> None:
        for name, mask in self.masks.items():
            if mask.dtype != torch.bool:
                raise ValueError(f"The mask of parameter {name!r} has dtype {mask.dtype}; give bool tensors.")

    def __getitem__(self, name: str) -> Tensor:
        return self.masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def count(self) -> int:
        """Number of selected entries."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    @property
    def total(self) -> int:
        """Number of all entries."""
        return sum(mask.numel() for mask in self.masks.values())

    def verify(self, model: nn.Module | Mapping[str, Tensor]) -> None:
        """Checks that the mask was made for these weights, bit for bit.

        Args:
            model: The model before training, or its parameters by name.

        Raises:
            ValueError: If names, shapes or weights differ; the message names the first difference.
        """
        remedy = "make a mask from this model, or load the model that this one was made from."
        weights = named_weights(model)
        for name, weight in weights.items():
            if name not in self.masks:
                raise ValueError(f"The mask lacks parameter {name!r} of the model; {remedy}")
            if self.masks[name].shape != weight.shape:
                raise ValueError(
                    f"The mask of parameter {name!r} has shape {tuple(self.masks[name].shape)} but the "
                    f"model's has {tuple(weight.shape)}; {remedy}"
                )
        for name in self.masks:
            if name not in weights:
                raise ValueError(f"The mask has parameter {name!r}, which the model lacks; {remedy}")
        found = fingerprint(weights)
        if found != self.fingerprint:
            raise ValueError(
                f"The mask was made for other weights of the same shapes (values differ, or were rounded in loading: "
                f"fingerprint {self.fingerprint}, the model's {found}); {remedy}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the mask, eight entries a byte, as one safetensors file; it appears whole or not at all.

        Args:
            path: The file to write or to replace; its folder is made where there is none.
        """
        packed = {
            name: torch.from_numpy(np.packbits(mask.cpu().reshape(-1).numpy(), bitorder="little"))
            for name, mask in self.masks.items()
        }
        header = {
            "format": _FORMAT,
            "shapes": {name: list(mask.shape) for name, mask in self.masks.items()},
            "density": self.density,
            "score": self.score,
            "gamma": None if self.gamma is None else repr(float(self.gamma)),
            "fingerprint": self.fingerprint,
            "content": fingerprint(packed),
        }
        with atomic_file(path) as temporary:
            # One metadata entry, for several would be written in no fixed order.
            save_file(packed, temporary, metadata={"mask": json.dumps(header)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a mask that `save` wrote.

        Args:
            path: The file.

        Raises:
            ValueError: If there is no such file, or it is cut short, changed, or no weight mask.
        """
        if not Path(path).is_file():
            raise ValueError(f"There is no mask file {os.fspath(path)!r}; make one, or give the path of one.")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["mask"])
                packed = {name: file.get_tensor(name) for name in file.keys()}
            if header["format"] != _FORMAT or header["content"] != fingerprint(packed):
                raise ValueError("not the content that was saved")
            masks = {name: _unpack(packed[name], shape) for name, shape in header["shapes"].items()}
            gamma = None if header["gamma"] is None else float(header["gamma"])
            return cls(masks, header["density"], header["score"], header["fingerprint"], gamma)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} is not a whole weight mask ({type(error).__name__}: {error}); make it again."
            ) from error


def _unpack(packed: Tensor, shape: list[int]) -> Tensor:
    size = torch.Size(shape)
    bits = np.unpackbits(packed.numpy(), count=size.numel(), bitorder="little")
    return torch.from_numpy(bits).view(torch.bool).view(size)
