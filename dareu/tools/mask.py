"""Shows what a weight mask selects, and how far two masks agree: show.

dareu mask show mask.safetensors --png mask.png
dareu mask show mask.safetensors --against other.safetensors
"""

import argparse
import math

from rich import box
from rich.console import Console
from rich.table import Table

from dareu.console import plain_console
from dareu.masks.overview import OUTSIDE, MaskGrid, density_grid, overlap_grid, save_heatmap
from dareu.masks.weight_mask import WeightMask
from dareu.runs.program import run_program


def main() -> None:
    """Runs `dareu mask` with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="dareu mask", description="Look at a weight mask.")
    actions = parser.add_subparsers(dest="action", required=True)
    action = actions.add_parser("show", help="print the share of selected entries by layer and kind of module")
    action.add_argument("mask", help="mask file, such as mask.safetensors")
    action.add_argument("--against", metavar="FILE", help="another mask: show the overlap of the two in its place")
    action.add_argument("--png", metavar="FILE", help="also draw it as a heatmap")
    arguments = parser.parse_args()

    console = plain_console()
    mask = WeightMask.load(arguments.mask)
    if arguments.against is None:
        grid = density_grid(mask)
        lines = [_summary(arguments.mask, mask)]
    else:
        other = WeightMask.load(arguments.against)
        grid = overlap_grid(mask, other)
        p, q = mask.count / mask.total, other.count / other.total
        lines = [
            _summary(arguments.mask, mask),
            _summary(arguments.against, other),
            f"Jaccard overlap {grid.share():.4f}; random masks of these densities have {p * q / (p + q - p * q):.4f}",
        ]
    if arguments.png is not None:
        save_heatmap(grid, arguments.png)
    show(grid, console)
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def show(grid: MaskGrid, console: Console) -> None:
    """Prints a grid in percent: the layers as a table, what lies outside them as another."""
    if grid.layers:
        table = Table(title=f"{grid.title}, %", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("layer", justify="right")
        last = [kind.rpartition(".")[2] for kind in grid.kinds]  # "q_proj" of "self_attn.q_proj" says enough
        for header in (*(last if len(set(last)) == len(last) else grid.kinds), "all"):
            table.add_column(header, justify="right", overflow="fold")
        for label, layers in (*((str(layer), [layer]) for layer in grid.layers), ("all", grid.layers)):
            shares = [*(grid.share(layers, [kind]) for kind in grid.kinds), grid.share(layers)]
            table.add_row(label, *map(_percent, shares))
        console.print(table)
    table = Table("module", title=f"{grid.title}, %", box=box.SIMPLE_HEAD)
    table.add_column("", justify="right")
    for name in grid.outside:
        table.add_row(name, _percent(grid.share([OUTSIDE], [name])))
    table.add_row("whole model", _percent(grid.share()))
    console.print(table)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def _summary(name: str, mask: WeightMask) -> str:
    return (
        f"{name}: {mask.score}, {mask.count:,} of {mask.total:,} entries ({mask.count / mask.total:.4f}), "
        f"made for the weights {mask.fingerprint}"
    )


if __name__ == "__main__":
    run_program(main, "mask")
