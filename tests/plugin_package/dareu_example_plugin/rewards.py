"""Two rewards that know nothing of dareu: one has an option, one asks for the retained rows."""

from collections.abc import Callable
from typing import Any


class BrevityReward:
    """1 for an answer of at most `limit` words, 0 for a longer one; does not apply to an empty answer."""

    def __init__(self, limit: int = 20) -> None:
        self.limit = limit
        self.__name__ = f"brevity_{limit}"

    def __call__(self, prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
        """One value a completion, in the form that TRL asks for."""
        lengths = [len(completion.split()) for completion in completions]
        return [float(length <= self.limit) if length else None for length in lengths]


def likeness(retained: Any) -> Callable[..., list[float]]:
    """How much of an answer is made of words that retained answers have: a share in [0, 1]."""
    known = {word for completion in retained["completion"] for word in completion.lower().split()}

    def likeness(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        words = [completion.lower().split() for completion in completions]
        return [sum(word in known for word in said) / max(1, len(said)) for said in words]

    return likeness
