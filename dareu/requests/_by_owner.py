"""What was measured of each owner, from the rows of a measurement."""

from __future__ import annotations

import math
import os

#: Numbers that say whether an owner is forgotten, of the columns that a measurement of rows has.
SHOWN = ("forget_rouge", "forget_probability", "fact_recall", "forget_attribution_heldout_stripped")


def by_owner(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Each forgotten owner's numbers of `SHOWN`, means over the rows that have them.

    Args:
        path: The `measurement.parquet` of a model.
    """
    from pyarrow import parquet

    table = parquet.read_table(path).to_pylist()
    found: dict[str, dict[str, float]] = {}
    for row in table:
        if row["split"] == "forget":
            found.setdefault(row["owner"], {})
    for owner, numbers in found.items():
        rows = [row for row in table if row["split"] == "forget" and row["owner"] == owner]
        for name in SHOWN:
            values = [row[name] for row in rows if row.get(name) is not None]
            if values:
                numbers[name] = math.fsum(values) / len(values)
    return found
