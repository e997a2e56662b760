"""Makes one page of runs: what was asked, what came of it, and what that does not show.

dareu report runs/forget
dareu report runs/dareu runs/npo --output report.html
"""

import argparse
from pathlib import Path

from dareu.console import plain_console
from dareu.report.page import write_page
from dareu.runs.program import run_program


def main() -> None:
    """Runs `dareu report` with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="dareu report", description="Make one page of runs, which needs no network.")
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="run",
        type=Path,
        help="folder of a run of forget, unlearn, spunge, finetune, benchmark or quickstart; several are compared",
    )
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="the page; default: report.html in the first run's folder"
    )
    options = parser.parse_args()
    output = options.runs[0] / "report.html" if options.output is None else options.output
    if output.is_dir():
        raise ValueError(f"output is the folder {output}: name a file to write.")
    write_page(output, options.runs)
    plain_console().print(f"The page is {output}; it needs no network.", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run_program(main, "report")
