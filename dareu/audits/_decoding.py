"""The same question answered otherwise: the best of several tries, and from within the gold answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dareu.audits._audit import Audit, Readings
from dareu.audits._reader import Reader


def _unattacked(reader: Reader) -> Iterator[tuple[str, Readings]]:
    yield "", reader.read()


def _best_of_n(
    reader: Reader, seed: int, num_samples: int = 16, temperatures: Sequence[float] = (0.7, 1.0, 1.3)
) -> Iterator[tuple[str, Readings]]:
    """`num_samples`: tries of each question; `temperatures`: at each of these."""
    for temperature in temperatures:
        yield f"T {temperature:g}", reader.read_samples(num_samples, temperature, seed)


def _prefilled(reader: Reader, shares: Sequence[float] = (0.25, 0.5)) -> Iterator[tuple[str, Readings]]:
    """`shares`: of the gold answer's tokens that are put into the model's mouth."""
    if wrong := [share for share in shares if not 0 < share < 1]:
        raise ValueError(f"shares holds {wrong[0]}: give shares of the answer between 0 and 1.")
    for share in shares:
        yield f"{share:.0%}", reader.read_rest(share)


UNATTACKED = Audit(_unattacked)
BEST_OF_N = Audit(_best_of_n)
PREFILLED = Audit(_prefilled)
