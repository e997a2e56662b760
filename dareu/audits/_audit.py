"""What an audit is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: What is read of a model's answers to the n rows to forget, by name: values of rows, (n,), NaN where a row has none.
Readings: TypeAlias = Mapping[str, NDArray[np.float64]]


class NotPossible(ValueError):
    """The rows or the model do not allow an audit: it is left out where nobody named it."""


class Audit(NamedTuple):
    """An attack that tries to bring back what was forgotten."""

    attack: Callable[..., Iterator[tuple[str, Readings]]]
    """Yields, for each of its settings, the setting's name ("int4") and what was read under the attack. Names by its
    parameters without a default what it needs (`dareu.audits.Subject`); those with one are its options. It leaves the
    model as it was; see `dareu.audits.restored`."""
    columns: tuple[str, ...] = ()
    """Columns of the rows to forget, beside those of every record, without which it cannot be made."""
    libraries: tuple[str, ...] = ()
    """Modules that are not always installed, and whose presence changes what is done."""
