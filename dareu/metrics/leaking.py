"""Whether one of several tries leaks what was forgotten."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def leak_at_k(num_samples: int, leaking: ArrayLike, k: int) -> NDArray[np.float64]:
    """The chance that one at least of k answers leaks, without bias from n ≥ k samples (arXiv 2511.04934).

    1 - C(n - c, k) / C(n, k), where c of the n samples leak: the share of the draws of k without repetition that hold
    one of these.

    Args:
        num_samples: n.
        leaking: c of each row, (rows,); NaN where a row has no answer to that.
        k: Tries, 1 to n.

    Returns:
        Chances in [0, 1], NaN where c is, (rows,).

    Raises:
        ValueError: `k` is out of range, or more leak than there are.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}, of {num_samples} samples: give a number of tries from 1 to that.")
    c = np.asarray(leaking, dtype=np.float64)
    if (c > num_samples).any() or (c < 0).any():
        raise ValueError(f"{c.max():.0f} of {num_samples} samples leak: give counts from 0 to {num_samples}.")
    # Π (n - c - i) / (n - i) over the k draws, in which a draw that cannot but leak makes a factor of 0
    kept = np.ones_like(c)
    for draw in range(k):
        kept *= np.maximum(num_samples - c - draw, 0) / (num_samples - draw)
    return 1 - kept
