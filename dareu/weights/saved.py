"""The weights of a saved model, read one at a time."""

import os
from collections.abc import Iterator, Mapping

from safetensors import safe_open
from torch import Tensor

from dareu.weights.files import StoredTensor, stored_tensors


class CheckpointWeights(Mapping[str, Tensor]):
    """The tensors of a saved model's safetensors files by name, each read when it is asked for.

    Args:
        source: A folder that `save_pretrained` wrote, of one file or of several, or places from `stored_tensors`
            under any names.

    Raises:
        ValueError: If the folder holds no safetensors file, or one is not whole.
    """

    def __init__(self, source: str | os.PathLike[str] | Mapping[str, StoredTensor]) -> None:
        self._places = source if isinstance(source, Mapping) else stored_tensors(source)

    def __getitem__(self, name: str) -> Tensor:
        place = self._places[name]
        with safe_open(place.file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(place.name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
