"""Weights that an audit changes for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from dareu.audits._audit import NotPossible

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def restored(model: PreTrainedModel) -> Iterator[None]:
    """Puts the model's weights back at the end, bit for bit, and whether each requires a gradient.

    A copy of the weights waits on the CPU meanwhile.
    """
    named = dict(model.named_parameters())
    before = {name: (parameter.detach().cpu().clone(), parameter.requires_grad) for name, parameter in named.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, (values, trained) in before.items():
                named[name].copy_(values)
                named[name].requires_grad_(trained)
                named[name].grad = None


def linear_layers(model: PreTrainedModel) -> list[nn.Linear | Conv1D]:
    """The linear layers within the model, without its head: what deployment quantises, and pruning thins.

    A `Conv1D`, GPT-2's, has its weight the other way round, (in, out). Experts that are stacked in one parameter are no
    layers, and are left alone.

    Raises:
        NotPossible: There are none.
    """
    head = model.get_output_embeddings()
    layers = [each for each in model.modules() if isinstance(each, nn.Linear | Conv1D) and each is not head]
    if not layers:
        raise NotPossible("The model has no linear layers but its head, whose weights could be changed.")
    return layers
