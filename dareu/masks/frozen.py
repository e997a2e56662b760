"""Proof after training: how many weights outside the mask moved, bit for bit."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dareu.models import load_model
from dareu.weights import CheckpointWeights
from dareu.weights.fingerprint import named_weights

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def saved_for(mask: Mapping[str, Tensor], folder: str | os.PathLike[str], dtype: torch.dtype) -> Mapping[str, Tensor]:
    """The weights of a saved model under the names of a mask, which are those in memory.

    They are read one at a time, but where transformers gives weights other names or shapes in files (GPT-NeoX's head,
    experts that are one tensor in memory): there the model is loaded.

    Args:
        mask: The mask.
        folder: Of the model.
        dtype: Of the weights in memory.
    """
    stored = CheckpointWeights(folder)
    if mask.keys() <= stored.keys():
        return stored
    return named_weights(load_model(str(folder), dtype=dtype))


def count_moved_outside(
    before: nn.Module | Mapping[str, Tensor],
    after: nn.Module | Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
) -> int:
    """Counts the entries outside the mask whose bits differ before and after training.

    Bits, not values: 0.0 and -0.0 differ, and a NaN equals itself. Every parameter of the mask is compared;
    tensors that only the weights have (a tied head saved twice) are not looked at.

    Args:
        before: The weights before training: a model, a mapping, or `CheckpointWeights`.
        after: The weights after it, likewise.
        mask: Parameter name to bool tensor, true where training was allowed.

    Returns:
        The number of entries that moved although they were frozen; 0 when the mask held.

    Raises:
        ValueError: If a parameter of the mask is missing on a side, or differs in shape or dtype.
    """
    old_weights, new_weights = named_weights(before), named_weights(after)
    moved = 0
    for name, selected in mask.items():
        for side, weights in (("before", old_weights), ("after", new_weights)):
            if name not in weights:
                raise ValueError(
                    f"The weights {side} training lack parameter {name!r} of the mask; give the same model."
                )
        old, new = old_weights[name].detach().cpu(), new_weights[name].detach().cpu()
        if not (old.shape == new.shape == selected.shape and old.dtype == new.dtype):
            raise ValueError(
                f"Parameter {name!r} is {old.dtype} {tuple(old.shape)} before training and {new.dtype} "
                f"{tuple(new.shape)} after, with a mask of {tuple(selected.shape)}; "
                "compare the same model and dtype."
            )
        bits = _BITS[old.element_size()]
        moved += int(((old.view(bits) != new.view(bits)) & ~selected.cpu()).sum())
    return moved
