"""The retraining gap: how far an unlearned model is from the retrained one, in everything that is measured of both."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from dareu.metrics._metric import Metric
from dareu.metrics.fluency import BASE_NLL, gibberish_of_rows

#: What counts, in both directions, wherever every model has it; each is in [0, 1].
COUNTED = (
    *("forget_rouge", "retain_rouge", "test_rouge"),
    *("forget_probability", "retain_probability"),
    *("fact_recall", "name_kept", "gibberish"),
)

#: The judge's word on the owners: of these the first that every model has. Where settings are chosen, the test judge
#: is not asked, and the validation judge stands in for it.
JUDGED = ("forget_attribution_heldout_stripped", "forget_attribution_validation_stripped")

#: Of these counts only what goes beyond the retrained model's.
EXCESS = ("misattribution",)


def retraining_gap(
    model: Mapping[str, float], retrained: Mapping[str, float], common: Collection[str] | None = None
) -> float:
    """The root mean square of what a model differs by from the retrained one, over measures in [0, 1].

        gap = sqrt( mean_m d_m² ),    d_m = m(model) - m(retrained),  or max(0, d_m) for misattribution

    The measures are ROUGE on forget, retained and test rows, the gold answers' probability on forget and retained
    rows, facts recalled, names kept, gibberish, a judge's word on the answers without the prompt's words, and
    misattribution.

    Args:
        model: Numbers of the model by name.
        retrained: The same of the model retrained without the forget owners.
        common: Names of the numbers that every model of a table has, for only these are compared; default: what both
            have.

    Returns:
        A number in [0, 1], the lower the better; the retrained model itself has 0.

    Raises:
        ValueError: There is no measure that all have, or one is not within [0, 1].
    """
    there = model.keys() & retrained.keys()
    if common is not None:
        there &= set(common)
    judged = [name for name in JUDGED if name in there][:1]
    counted = [name for name in (*COUNTED, *judged, *EXCESS) if name in there]
    if not counted:
        raise ValueError(
            f"The retraining gap needs one at least of {', '.join((*COUNTED, *JUDGED, *EXCESS))} of every model: "
            "measure them by the same metrics."
        )
    squares = []
    for name in counted:
        for value in (model[name], retrained[name]):
            if not 0 <= value <= 1:
                raise ValueError(f"The retraining gap needs {name!r} within [0, 1], but it is {value}: measure again.")
        difference = model[name] - retrained[name]
        squares.append(max(0.0, difference) ** 2 if name in EXCESS else difference**2)
    return math.sqrt(math.fsum(squares) / len(squares))


def _numbers(
    numbers: Mapping[str, float],
    retrained: Mapping[str, float],
    row_values: Mapping[str, NDArray[np.float64]],
    retrained_row_values: Mapping[str, NDArray[np.float64]],
    common: Collection[str],
) -> dict[str, float]:
    if BASE_NLL in {*common} & row_values.keys() & retrained_row_values.keys():
        proper = retrained_row_values
        numbers = {**numbers, "gibberish": float(gibberish_of_rows(row_values, proper).mean())}
        retrained = {**retrained, "gibberish": float(gibberish_of_rows(proper, proper).mean())}
        common = {*common, "gibberish"}
    return {"retraining_gap": retraining_gap(numbers, retrained, common)}


RETRAINING_GAP = Metric(_numbers, splits=(), columns=("retraining_gap",), reads=("rouge", "probability"))
