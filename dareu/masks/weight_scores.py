"""Scores of weights under the name of what made them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class WeightScores(Mapping[str, Tensor]):
    """Parameter name to scores of the parameter's shape; the larger a score's absolute value, the more it matters.

    Attributes:
        scores: The scores, float32 or the parameters' own dtype, in the model's order.
        score: What made them: a name of `SCORES`, or of a plug-in the last part of its name.
        gamma: Gamma of the equation where there is one; the resolved number where `"auto"` was asked for.
    """

    scores: Mapping[str, Tensor] = field(repr=False)
    score: str
    gamma: float | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)
