"""The multiplier of a constraint: how heavy the retain term must be for its KL to stay near a target."""

from __future__ import annotations

import math

#: By how much the multiplier's logarithm changes an update, at most; and within which factors it stays.
_RATE, _RANGE = 0.1, 16.0


class Dual:
    """A multiplier that rises while what it weighs is above a target, and falls while it is below.

    Dual ascent on the Lagrangian of a constrained policy optimisation (Achiam et al. 2017, arXiv 1705.10528; for
    unlearning Entesari et al. 2025, arXiv 2506.05314), in the multiplier's logarithm, so that it stays positive:
    log λ += .1 · clip(KL / target − 1, −1, 1), with λ in [1/16, 16].

    Args:
        target: Of the KL, in nats a token, > 0.

    Attributes:
        multiplier: λ, 1 at the start.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.multiplier = 1.0
        self._seen: list[float] = []

    def see(self, value: float) -> None:
        """Takes the KL of a micro-batch, the same on every process."""
        self._seen.append(value)

    def step(self) -> None:
        """Moves the multiplier after an update, by the mean KL of its micro-batches; stays where there was none."""
        if not self._seen:
            return
        mean = sum(self._seen) / len(self._seen)
        self._seen.clear()
        moved = self.multiplier * math.exp(_RATE * min(1.0, max(-1.0, mean / self.target - 1.0)))
        self.multiplier = min(_RANGE, max(1 / _RANGE, moved))
