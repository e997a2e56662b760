"""The smallest weights set to zero: what was forgotten by small changes may come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch.nn.utils import prune

from dareu.audits._audit import Audit, Readings
from dareu.audits._options import numbers
from dareu.audits._reader import Reader
from dareu.audits._weights import linear_layers, restored

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _pruned(
    model: PreTrainedModel, reader: Reader, sparsity: Sequence[float] | float = (0.1, 0.3, 0.5)
) -> Iterator[tuple[str, Readings]]:
    """`sparsity`: shares of each layer's weights that are set to zero."""
    for share in numbers("sparsity", sparsity, high=1):
        with restored(model):
            for layer in linear_layers(model):
                prune.l1_unstructured(layer, "weight", amount=share)
                prune.remove(layer, "weight")  # which leaves the zeros
            yield f"{100 * share:g}%", reader.read()


PRUNING = Audit(_pruned)
