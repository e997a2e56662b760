"""Rows of results.json over seeds: mean and standard deviation, as a table of the terminal, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dareu.console import plain_console
from dareu.files import atomic_file
from dareu.runs import ResultRow

if TYPE_CHECKING:
    from rich.table import Table


def shown_digits(metric: str) -> int:
    """How many decimals of a number are shown."""
    if metric in ("updates", "seconds", "peak_memory_mib"):
        return 0
    return 3 if metric.endswith("_gap") else 2  # gaps of good methods differ in the third


class Summary(NamedTuple):
    """One method under one mask, over its seeds."""

    method: str
    mask: str | None
    rows: list[ResultRow]

    def values(self, metric: str) -> list[float]:
        """A metric of each seed that has it; `seconds` and `peak_memory_mib` count as metrics."""
        found: list[float | None] = []
        for row in self.rows:
            if metric == "seconds":
                found.append(row["seconds"])
            elif metric == "peak_memory_mib":
                memory = row["peak_memory_bytes"]
                found.append(None if memory is None else memory / 2**20)
            else:
                found.append(row["metrics"].get(metric))
        return [value for value in found if value is not None]

    def mean(self, metric: str) -> float | None:
        """The mean over seeds; None where no seed has the metric."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def text(self, metric: str) -> str:
        """`mean ± sd`, the sample's standard deviation, or the one value there is; empty where there is none."""
        values, digits = self.values(metric), shown_digits(metric)
        if not values:
            return ""
        mean = f"{statistics.fmean(values):.{digits}f}"
        return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def summarise(rows: Sequence[ResultRow]) -> list[Summary]:
    """Rows of one method under one mask together, in the order in which they come.

    Rows of single parts and of trials that were not chosen are left out.
    """
    groups: dict[tuple[str, str | None], list[ResultRow]] = {}
    for row in rows:
        if "part" not in row and "trial" not in row:
            groups.setdefault((row["method"], row["mask"]), []).append(row)
    return [Summary(method, mask, group) for (method, mask), group in groups.items()]


def comparison_table(summaries: Sequence[Summary], metrics: Sequence[str], title: str = "Comparison") -> Table:
    """A row a method and mask, a column a metric that any of them has."""
    from rich.table import Table

    shown = [metric for metric in metrics if any(summary.values(metric) for summary in summaries)]
    table = Table("method", "mask", title=title)
    for metric in shown:
        table.add_column(metric.replace("_", " "), justify="right")  # which wraps
    for summary in summaries:
        table.add_row(summary.method, summary.mask or "–", *(summary.text(metric) for metric in shown))
    return table


def write_markdown(path: Path, table: Table) -> None:
    """The same table in Markdown."""
    from rich import box

    table.box, title, table.title = box.MARKDOWN, table.title, None
    console = plain_console(file=io.StringIO(), record=True, width=1000)
    console.print(table)
    lines = [line.strip() for line in console.export_text().splitlines()]
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(line for line in lines if line) + "\n", encoding="utf-8")
    table.box, table.title = box.HEAVY_HEAD, title


def write_csv(path: Path, rows: Sequence[ResultRow]) -> None:
    """A line a row, a column a metric; empty where a row lacks it."""
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    fixed = ("method", "mask", "seed", "part", "stage", "trial", "model", "seconds", "peak_memory_bytes")
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*fixed, *metrics])
        for row in rows:
            writer.writerow([*(row.get(name) for name in fixed), *(row["metrics"].get(name) for name in metrics)])
