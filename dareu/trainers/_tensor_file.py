"""Tensors that are computed once and kept in a file known by what went into it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dareu.files import atomic_file, content_hash

logger = logging.getLogger(__name__)

T = TypeVar("T")


class TensorFile:
    """A safetensors file whose name is the hash of all that decides its content.

    Args:
        folder: Where such files are kept; runs may share it.
        recipe: What decides the content, such as the model's fingerprint and the prompts, as plain values.
        what: Names the content in the log.
    """

    def __init__(self, folder: str | os.PathLike[str], recipe: Mapping[str, Any], what: str) -> None:
        self.path = Path(folder) / f"{content_hash(recipe)[:32]}.safetensors"
        self.what = what

    def load(self, read: Callable[[dict[str, Tensor], dict[str, str]], T]) -> T | None:
        """What `read` makes of the tensors and the metadata; None where no file is kept, or none that is whole.

        Args:
            read: Raises `KeyError`, `ValueError` or `RuntimeError` where they are not what was saved.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # it is no mapping
                content = read(tensors, file.metadata() or {})
        except (SafetensorError, KeyError, ValueError, RuntimeError, StopIteration) as error:
            logger.warning("%s is no whole file of %s (%s): they are made again.", self.path, self.what, error)
            return None
        logger.info("Found %s in %s.", self.what, self.path)
        return content

    def save(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        """Writes the tensors; the file appears whole or not at all."""
        with atomic_file(self.path) as temporary:
            save_file(dict(tensors), temporary, metadata=dict(metadata or {}))
