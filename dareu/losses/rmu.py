"""Representation misdirection for unlearning."""

from __future__ import annotations

import torch
from torch import Tensor


def rmu(hidden: Tensor, target: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean squared error of hidden states, for both terms of RMU (Li et al. 2024, arXiv 2403.03218).

        L = MSE(h_l(x_f), c·u) + α · MSE(h_l(x_r), h_l^N(x_r))

    The target is c·u on forget texts, u a fixed unit vector, and the states of the model before unlearning on retained
    ones. The error is averaged over the features and the real tokens of each text, then over texts. All tokens but
    padding count, those of the prompt too: the method changes what the model makes of a text, not what it answers.

    Args:
        hidden: (B, T, H) outputs of decoder layer l.
        target: (B, T, H), or (H,) for all tokens.
        attention_mask: (B, T), 1 on real tokens; a row has one at least.

    Returns:
        A scalar ≥ 0.
    """
    real = attention_mask.bool()
    rows = real.nonzero()[:, 0]
    # Taken out, not multiplied by 0: states of padding may be NaN.
    errors = (hidden[real] - target.expand_as(hidden)[real]).square().mean(-1)
    sums = torch.zeros(len(hidden), dtype=errors.dtype, device=errors.device).index_add(0, rows, errors)
    return (sums / real.sum(1)).mean()


def control_vector(size: int, seed: int) -> Tensor:
    """u: drawn uniformly from [0, 1) per feature and scaled to length 1, as in the paper's code; float32 (size,).

    The draw has a generator of its own, so that runs of the same seed share the vector whatever else they draw.
    """
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    unit: Tensor = drawn / drawn.norm()
    return unit
