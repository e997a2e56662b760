"""What a mask selects where: layers by kinds of modules, as numbers and as a picture, and how far two masks agree."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from dareu.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

#: The layer of what lies outside all layers: embeddings, the last norm, the head.
OUTSIDE = None


@dataclass(frozen=True)
class MaskGrid:
    """Shares by layer and kind of module, each a count over a count.

    Attributes:
        title: What the shares are of.
        counts: (layer, kind) to numerator and denominator; the layer is `OUTSIDE` for modules in no layer.
    """

    title: str
    counts: Mapping[tuple[int | None, str], tuple[int, int]]

    @property
    def layers(self) -> list[int]:
        """The numbered layers, in order."""
        return sorted({layer for layer, _ in self.counts if layer is not OUTSIDE})

    @property
    def kinds(self) -> list[str]:
        """The kinds of modules in the layers, in the model's order."""
        return list(dict.fromkeys(kind for layer, kind in self.counts if layer is not OUTSIDE))

    @property
    def outside(self) -> list[str]:
        """The modules outside the layers, in the model's order."""
        return [kind for layer, kind in self.counts if layer is OUTSIDE]

    def share(self, layers: Collection[int | None] | None = None, kinds: Collection[str] | None = None) -> float:
        """The share over the cells of some layers and kinds together, all by default; NaN where there is none."""
        counts = [
            count
            for (layer, kind), count in self.counts.items()
            if (layers is None or layer in layers) and (kinds is None or kind in kinds)
        ]
        whole = sum(count[1] for count in counts)
        return sum(count[0] for count in counts) / whole if whole else math.nan


def density_grid(mask: Mapping[str, Tensor]) -> MaskGrid:
    """The share of selected entries by layer and kind of module.

    Args:
        mask: Parameter name to bool tensor. Weight and bias of a module count together, and so do the experts of a
            layer; a layer is the first number in a name.
    """
    return _grid("Selected entries", {name: (int(m.sum()), m.numel()) for name, m in mask.items()})


def overlap_grid(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> MaskGrid:
    """The Jaccard overlap of two masks, entries in both over entries in either, by layer and kind of module.

    `share()` of the grid is the overlap of the whole masks. Random masks of densities p and q overlap by
    `p * q / (p + q - p * q)`.

    Raises:
        ValueError: If the masks are not of the same parameters.
    """
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            raise ValueError(f"Only one of the masks has parameter {name!r}; compare masks of the same model.")
        if a[name].shape != b[name].shape:
            raise ValueError(
                f"The masks of parameter {name!r} have shapes {tuple(a[name].shape)} and {tuple(b[name].shape)}; "
                "compare masks of the same model."
            )
    counts = {name: (int((a[name] & b[name]).sum()), int((a[name] | b[name]).sum())) for name in a}
    return _grid("Jaccard overlap", counts)


def save_heatmap(grid: MaskGrid, path: str | os.PathLike[str]) -> None:
    """Draws a grid as a PNG: layers by kinds of modules, and what lies outside the layers beside them.

    Args:
        grid: From `density_grid` or `overlap_grid`.
        path: The file to write or to replace.

    Raises:
        ValueError: If the name does not end in .png, or matplotlib is not installed.
    """
    if not os.fspath(path).endswith(".png"):
        raise ValueError(f"{os.fspath(path)!r} does not end in .png; give the picture a name that does.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("Pictures are drawn by matplotlib, which is missing; pip install 'dareu[plots]'.") from error

    panels = []
    if grid.layers:
        cells = [[grid.share([layer], [kind]) for kind in grid.kinds] for layer in grid.layers]
        panels.append((cells, [str(layer) for layer in grid.layers], grid.kinds, "layer"))
    if grid.outside:
        cells = [[grid.share([OUTSIDE], [name])] for name in grid.outside]
        panels.append((cells, grid.outside, ["module"], "outside the layers"))
    # One range of colours, so that the panels can be compared
    top = max((share for cells, *_ in panels for row in cells for share in row if share > 0), default=1.0)
    height = 2.2 + 0.3 * max(len(rows) for _, rows, *_ in panels)
    figure = Figure(figsize=(3 + 0.75 * (len(grid.kinds) + 3), height), layout="constrained")
    axes = figure.subplots(1, len(panels), width_ratios=[len(columns) for _, _, columns, _ in panels], squeeze=False)[0]
    for axis, (cells, rows, columns, label) in zip(axes, panels, strict=True):
        image = _draw(axis, cells, top)
        axis.set_yticks(range(len(rows)), rows)
        axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_ylabel(label)
    figure.colorbar(image, ax=axes, label="share")
    figure.suptitle(f"{grid.title}: {grid.share():.3g} over the whole model")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _draw(axis: Axes, cells: list[list[float]], top: float) -> AxesImage:
    image = axis.imshow(cells, vmin=0, vmax=top, cmap="viridis", aspect="auto")
    axis.set_facecolor("lightgrey")  # shows where there is no share
    for row, shares in enumerate(cells):
        for column, share in enumerate(shares):
            if not math.isnan(share):
                colour = "black" if share > 0.6 * top else "white"
                axis.text(column, row, f"{share:.2g}", ha="center", va="center", fontsize=8, color=colour)
    return image


def _grid(title: str, counts: Mapping[str, tuple[int, int]]) -> MaskGrid:
    cells: dict[tuple[int | None, str], tuple[int, int]] = {}
    for name, (part, whole) in counts.items():
        cell = _place(name)
        before = cells.get(cell, (0, 0))
        cells[cell] = (before[0] + part, before[1] + whole)
    return MaskGrid(title, cells)


def _place(name: str) -> tuple[int | None, str]:
    """Layer and kind of a parameter: 3 and `mlp.experts.*.up` of `model.layers.3.mlp.experts.7.up.weight`."""
    parts = name.split(".")
    if len(parts) > 1 and parts[-1] in ("weight", "bias"):
        parts.pop()
    layer = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    if layer is None:
        return OUTSIDE, ".".join(parts)
    kind = ["*" if part.isdecimal() else part for part in parts[layer + 1 :]]
    return int(parts[layer]), ".".join(kind) or "layer"
