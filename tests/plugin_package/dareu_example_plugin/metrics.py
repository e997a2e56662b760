"""A metric with an option, on two splits."""

from collections.abc import Sequence

from dareu.metrics import Metric


def brevity(split: str, answers: Sequence[str], *, limit: int = 20) -> dict[str, list[float]]:
    """1 for an answer of at most `limit` words, 0 for a longer one; NaN for an empty one."""
    lengths = [len(answer.split()) for answer in answers]
    return {f"{split}_brevity": [float(length <= limit) if length else float("nan") for length in lengths]}


BREVITY = Metric(brevity, splits=("forget", "test"), columns=("forget_brevity",))
