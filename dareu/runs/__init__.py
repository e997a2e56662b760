"""Run folders and what stands in them, stages of longer work, and what a run takes in time and memory."""

from dareu.runs.folder import Run, config_of, open_run
from dareu.runs.inputs import inputs_of
from dareu.runs.measurements import (
    StoredMeasurement,
    beside_control,
    common_numbers,
    in_json,
    read_measurement,
    write_measurement,
    write_rows,
)
from dareu.runs.results import ResultRow, read_results, write_results

__all__ = [
    "ResultRow",
    "Run",
    "StoredMeasurement",
    "beside_control",
    "common_numbers",
    "config_of",
    "in_json",
    "inputs_of",
    "open_run",
    "read_measurement",
    "read_results",
    "write_measurement",
    "write_results",
    "write_rows",
]
