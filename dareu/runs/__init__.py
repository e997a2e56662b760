"""Run folders and what stands in them, stages of longer work, and what a run takes in time and memory."""

from dareu.runs.folder import Run, config_of, open_run
from dareu.runs.results import ResultRow, read_results, write_results

__all__ = ["ResultRow", "Run", "config_of", "open_run", "read_results", "write_results"]
