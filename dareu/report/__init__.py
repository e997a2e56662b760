"""Result rows as tables, CSV and pictures."""

from dareu.report.picture import draw_tradeoff
from dareu.report.table import Summary, comparison_table, summarise, write_csv, write_markdown

__all__ = ["Summary", "comparison_table", "draw_tradeoff", "summarise", "write_csv", "write_markdown"]
