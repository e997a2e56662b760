"""Lists the files of a run that hold forgotten data, and deletes them on request.

dareu clean RUN
dareu clean RUN --delete
"""

import argparse

from rich.table import Table

from dareu.console import plain_console
from dareu.runs.holdings import holdings, take_out
from dareu.runs.program import run_program


def main() -> None:
    """Runs `dareu clean` with the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="dareu clean",
        description="List the files of a run that hold forgotten data. Model, mask, patch, numbers, settings and ledger"
        " are none, though the last two name the owners.",
    )
    parser.add_argument("run", help="folder of a run, with all its stages")
    parser.add_argument("--delete", action="store_true", help="delete them; the run cannot be gone on with afterwards")
    options = parser.parse_args()
    found = take_out(options.run) if options.delete else holdings(options.run)
    console = plain_console()
    if not found:
        console.print(f"Nothing in {options.run} holds forgotten data.", highlight=False)
        return
    table = Table("file or folder", "bytes", "holds")
    for holding in found:
        table.add_row(str(holding.path), f"{holding.nbytes:,}", holding.holds)
    console.print(table)
    done = "They were deleted." if options.delete else "Nothing was deleted: --delete does."
    console.print(done, highlight=False)


if __name__ == "__main__":
    run_program(main, "clean")
