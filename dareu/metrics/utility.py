"""Model utility: one number for what a model has kept, as TOFU takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dareu.metrics._metric import Metric
from dareu.metrics._offered import OfSplit

#: What counts of the retained rows, and of each part of the test rows.
_OF_RETAIN = ("probability", "rouge", "truth_ratio")
_OF_TEST = ("option_probability", "rouge", "truth_ratio")


def model_utility(parts: Sequence[float]) -> float:
    """The harmonic mean of the parts, each in [0, 1]; 0 where one of them is.

    TOFU's nine: probability, ROUGE-L recall and truth ratio max(0, 1 - R) of retained rows, and of questions on real
    authors and on the world the same with the probability among options.

    Raises:
        ValueError: There are no parts, or one is not within [0, 1].
    """
    if not parts:
        raise ValueError("Model utility has no parts: give at least one.")
    for part in parts:
        if not 0 <= part <= 1:
            raise ValueError(f"Model utility has a part of {part}: give numbers within [0, 1].")
    return 0.0 if min(parts) == 0 else float(len(parts) / np.reciprocal(np.asarray(parts, dtype=np.float64)).sum())


def _numbers(row_values: Mapping[str, NDArray[np.float64]], splits: Mapping[str, OfSplit]) -> dict[str, float]:
    test = splits["test"].rows
    named = test["subset"] if "subset" in test.column_names else [None] * len(test)
    subsets = np.array([name or "test" for name in named])
    wanted = {f"retain_{name}": [np.full(len(splits["retain"].rows), True)] for name in _OF_RETAIN}
    wanted |= {f"test_{name}": [subsets == subset for subset in sorted(set(subsets))] for name in _OF_TEST}
    if not wanted.keys() <= row_values.keys():
        return {}
    values = [row_values[name][chosen] for name, parts in wanted.items() for chosen in parts]
    if any(np.isnan(part).all() for part in values):
        return {}
    return {"model_utility": model_utility([float(np.nanmean(part)) for part in values])}


MODEL_UTILITY = Metric(
    _numbers, splits=(), columns=("model_utility",), reads=("rouge", "probability", "option_probability", "truth_ratio")
)
