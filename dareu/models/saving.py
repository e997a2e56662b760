"""A model's folder, with its tokenizer, whole or not at all."""

from __future__ import annotations

import logging
import os
from typing import Any

from dareu.files import atomic_folder
from dareu.models.adapters import merge_adapter

logger = logging.getLogger(__name__)


def save_model(model: Any, tokenizer: Any, path: str | os.PathLike[str], *, merge: bool = False) -> None:
    """Writes a model and its tokenizer; what stood there before is replaced.

    Args:
        model: A model, or an adapter on its base.
        tokenizer: Its tokenizer.
        path: The folder.
        merge: Merge the adapter into the weights. It is written as it is before, for this may want more memory than
            there is, and stays so, with a warning, where it cannot be merged.
    """
    _write(model, tokenizer, path)
    if merge:
        try:
            _write(merge_adapter(model), tokenizer, path)
        except Exception as error:  # whatever it was, the training is saved
            logger.warning(
                "The model could not be merged (%s). It is saved as an adapter on its base: measure and ask take it as "
                "it is, unlearn goes on with it by continue_adapter and merge_adapter=False, and all else merges it "
                "first.",
                " ".join(str(error).split()),
            )


def _write(model: Any, tokenizer: Any, path: str | os.PathLike[str]) -> None:
    with atomic_folder(path) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
