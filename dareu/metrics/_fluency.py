"""How fluent a model is: what the checkpoint before fine-tuning thinks of its answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dareu.metrics._metric import Metric
from dareu.metrics.likelihood import AnswerNLL


def _numbers(split: str, base_nll: AnswerNLL) -> dict[str, NDArray[np.float64]]:
    return {f"{split}_base_nll": base_nll.mean}


FLUENCY = Metric(_numbers)
