"""What masks select, by layer."""

from __future__ import annotations

import math
from typing import NamedTuple

from dareu.masks.overview import OUTSIDE, MaskGrid, density_grid
from dareu.masks.weight_mask import WeightMask
from dareu.report._gather import Family


class MaskTable(NamedTuple):
    """Shares of selected weights in percent, a row a layer; -1 where a layer has no such module."""

    caption: str
    kinds: list[str]
    layers: list[tuple[str, list[float]]]
    outside: list[tuple[str, float]]


def mask_tables(family: Family) -> tuple[list[MaskTable], list[str]]:
    """The masks of a family by layer, and sentences about those that cannot be read."""
    tables, unread = [], []
    for path in family.masks:
        try:
            mask = WeightMask.load(path)
        except ValueError as error:
            unread.append(str(error))
            continue
        caption = f"{mask.score}: {mask.count:,} of {mask.total:,} weights, {100 * mask.count / mask.total:.1f} percent"
        tables.append(_table(caption, density_grid(mask)))
    return tables, unread


def _table(caption: str, grid: MaskGrid) -> MaskTable:
    layers: list[tuple[str, list[float]]] = [
        (str(layer), [*(_percent(grid.share([layer], [kind])) for kind in grid.kinds), _percent(grid.share([layer]))])
        for layer in grid.layers
    ]
    outside = [(name, _percent(grid.share([OUTSIDE], [name]))) for name in grid.outside]
    last = [kind.rpartition(".")[2] for kind in grid.kinds]  # "q_proj" of "self_attn.q_proj" says enough
    kinds = last if len(set(last)) == len(last) else grid.kinds
    return MaskTable(caption, [*kinds, "all"], layers, outside)


def _percent(share: float) -> float:
    return -1.0 if math.isnan(share) else 100 * share
