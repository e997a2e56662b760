"""Result rows as tables, CSV and pictures, and runs as a page."""

from dareu.report.page import Conclusion, conclusion, write_page
from dareu.report.picture import draw_tradeoff
from dareu.report.table import Summary, comparison_table, shown_digits, summarise, write_csv, write_markdown

__all__ = [
    "Conclusion",
    "Summary",
    "comparison_table",
    "conclusion",
    "draw_tradeoff",
    "shown_digits",
    "summarise",
    "write_csv",
    "write_markdown",
    "write_page",
]
