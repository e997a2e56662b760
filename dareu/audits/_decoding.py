"""The same question answered otherwise: the best of several tries, and from within the gold answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dareu.audits._audit import Audit, Readings
from dareu.audits._options import numbers
from dareu.audits._reader import Reader


def _unattacked(reader: Reader) -> Iterator[tuple[str, Readings]]:
    yield "", reader.read()


def _best_of_n(
    reader: Reader, seed: int, num_samples: int = 16, temperatures: Sequence[float] | float = (0.7, 1.0, 1.3)
) -> Iterator[tuple[str, Readings]]:
    """`num_samples`: tries of each question; `temperatures`: at each of these."""
    for temperature in numbers("temperatures", temperatures):
        yield f"T {temperature:g}", reader.read_samples(num_samples, temperature, seed)


def _prefilled(reader: Reader, shares: Sequence[float] | float = (0.25, 0.5)) -> Iterator[tuple[str, Readings]]:
    """`shares`: of the gold answer's tokens that are put into the model's mouth."""
    for share in numbers("shares", shares, high=1):
        yield f"{100 * share:g}%", reader.read_rest(share)


UNATTACKED = Audit(_unattacked)
BEST_OF_N = Audit(_best_of_n)
PREFILLED = Audit(_prefilled)
