"""What a request will take of time and disk, roughly, before anything is done."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from dareu.requests.request import Request

#: Of a device's speed in one large product of matrices, what a training reaches.
_REACHED = 0.2
#: Seconds that a stage takes to begin, and a step of generating or training beyond its arithmetic.
_BEGIN, _STEP = 6.0, 0.015
#: Passes of the model over every token of an update: a forward is one, its backward two.
_REWARDED, _BY_LOSS = 13, 8
_SAMPLES = 16


class Estimate(NamedTuple):
    """Roughly."""

    seconds: float
    disk: int
    """Bytes at the fullest moment."""


def estimate(
    request: Request, *, updates: int, stages: int, models: int, rewarded: bool, trials: int, use_cpu: bool
) -> Estimate:
    """How long a request will take on this machine, and what it will write.

    Args:
        request: What is carried out.
        updates: Of all trainings together.
        stages: How many there are.
        models: How many are measured.
        rewarded: Whether the method learns from rewards.
        trials: Trainings whose models are kept until one is chosen.
        use_cpu: Whether a GPU is left aside.
    """
    size = request.size
    tokens = request.prompt_tokens + request.completion_tokens
    asked = request.rows["forget"] + sum(min(number, 120) for name, number in request.rows.items() if name != "forget")
    passes = updates * (64 * _REWARDED if rewarded else 32 * _BY_LOSS) * tokens
    passes += models * tokens * (3 * asked + _SAMPLES * request.rows["forget"])
    steps = updates * (request.completion_tokens + 10 if rewarded else 10) + models * 6 * request.completion_tokens
    arithmetic = 2 * size.num_parameters * passes / (_REACHED * _speed(use_cpu=use_cpu))
    overhead = _STEP * steps + _BEGIN * stages
    return Estimate(arithmetic + overhead, size.plan.weights * (trials + 5))


def _speed(*, use_cpu: bool) -> float:
    """Multiplications and additions a second of one large product of matrices on the device."""
    device = "cuda" if torch.cuda.is_available() and not use_cpu else "cpu"
    side = 4096 if device == "cuda" else 768
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for the device
        taken.append(time.perf_counter() - start)
    return float(2 * side**3 / min(taken))
