"""What an audit may ask for by a parameter's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dareu.audits._reader import Reader

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Subject(NamedTuple):
    """What an audit may ask for."""

    model: PreTrainedModel
    """The causal language model that is attacked; an audit leaves it as it was."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    forget: Dataset
    """The n rows to forget, with all their columns."""
    retain: Dataset
    """Rows to retain."""
    unrelated: Dataset | None
    """Rows that no model was trained on; an audit that asks for them is left out where there are none."""
    reader: Reader
    """Reads what the model, as it is now, tells of the rows to forget."""
    seed: int
    """Of all that is drawn."""
