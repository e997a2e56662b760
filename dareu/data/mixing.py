"""Retained rows with background people among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset


def mix_background(rows: Dataset, background: Dataset, share: float, seed: int) -> Dataset:
    """The rows with so many background rows, drawn at random, that these make the share; rows recur where they must.

    Args:
        rows: Those that are retained.
        background: Rows of background people; the columns of both are kept.
        share: Of background rows, in (0, 1).
        seed: Of the draw.
    """
    from datasets import concatenate_datasets

    wanted = max(1, round(len(rows) * share / (1 - share)))
    drawn = np.resize(np.random.default_rng(seed).permutation(len(background)), wanted)
    columns = [name for name in rows.column_names if name in background.column_names]
    recurring = max(1, round(len(drawn) * (1 - share) / share / len(rows)))
    return concatenate_datasets(
        [rows.select_columns(columns)] * recurring + [background.select(sorted(drawn.tolist())).select_columns(columns)]
    )
