"""How much of what was forgotten an attack brings back, between the retrained model and the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

#: What an audit found of the extraction strength: by setting, the values of rows, (n,), NaN where a row was not read.
Strengths: TypeAlias = Mapping[str, ArrayLike]

#: Where the target is less than this above the retrained model, there is nothing to bring back that could be told.
LEAST_SPREAD = 0.05


def leak_score(attacked: float, target: float, retrained: float) -> float | None:
    """(attacked - retrained) / (target - retrained), all three under the same attack.

    Args:
        attacked: A reading of the unlearned model.
        target: The same of the model before unlearning.
        retrained: The same of the model retrained without what is to be forgotten.

    Returns:
        0 where the model tells as much as the retrained one does, 1 where it tells as much as the target; below 0 where
        it tells less. None where the target tells less than `LEAST_SPREAD` more than the retrained model: the attack
        gives that one as much, and says nothing about forgetting.
    """
    spread = target - retrained
    return (attacked - retrained) / spread if spread >= LEAST_SPREAD else None


def robustness(model: Mapping[str, Strengths], retrained: Mapping[str, Strengths]) -> dict[str, float]:
    """How much of the forgetting outlives relearning and quantisation (OpenUnlearning, arXiv 2506.12618).

    With f = 1 - extraction strength: R = min(Δf of the retrained model / Δf of this one, 1) over the last setting of
    `relearning`, and Q = min(f after / f before, 1) over the last setting of `quantisation`. A model that relearning
    gives nothing has R = 1. Of a model that lost its utility they say nothing: read them where that is at least .8 of
    the target's.

    Args:
        model: By audit, what was found of the unlearned model; `unattacked` is among them.
        retrained: The same of the retrained one.

    Returns:
        `relearning_robustness`, `quantisation_robustness` and `robustness`, their harmonic mean, in [0, 1]; those whose
        audits were not made are left out.
    """
    found: dict[str, float] = {}
    if "relearning" in model and "relearning" in retrained:
        (before, after), (was, then) = (_forgotten(each, "relearning") for each in (model, retrained))
        lost, own = before - after, was - then
        found["relearning_robustness"] = 1.0 if lost <= 0 else min(max(own, 0.0) / lost, 1.0)
    if "quantisation" in model:
        before, after = _forgotten(model, "quantisation")
        found["quantisation_robustness"] = min(after / before, 1.0) if before > 0 else 1.0
    if len(found) == 2:
        r, q = found.values()
        found["robustness"] = 2 * r * q / (r + q) if r + q else 0.0
    return found


def _forgotten(found: Mapping[str, Strengths], audit: str) -> tuple[float, float]:
    """1 - extraction strength without the attack and in its last setting, of the rows that were read in both."""
    before, after = (np.asarray(list(found[name].values())[-1], dtype=np.float64) for name in ("unattacked", audit))
    both = ~(np.isnan(before) | np.isnan(after))
    return float(1 - before[both].mean()), float(1 - after[both].mean())
