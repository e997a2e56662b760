"""An audit with an option: the question asked several times over."""

from collections.abc import Iterator
from typing import Any

from dareu.audits import Audit, Reader, Readings


def insisting(forget: Any, reader: Reader, *, times: int = 2) -> Iterator[tuple[str, Readings]]:
    """Asks each question, a string, `times` times in one prompt."""
    yield f"{times} times", reader.read([" ".join([prompt] * times) for prompt in forget["prompt"]])


INSISTING = Audit(insisting)
