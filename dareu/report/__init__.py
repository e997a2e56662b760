"""Result rows as tables, CSV and pictures."""

from dareu.report.picture import draw_tradeoff
from dareu.report.table import Summary, comparison_table, shown_digits, summarise, write_csv, write_markdown

__all__ = ["Summary", "comparison_table", "draw_tradeoff", "shown_digits", "summarise", "write_csv", "write_markdown"]
