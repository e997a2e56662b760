"""Texts of people are printed as they are."""

import io

import pytest
from rich.table import Table

from dareu.console import plain_console


@pytest.mark.parametrize("text", ["[/b] Ada", "[red]Bo", "[/INST] Who?", ":smile:", "runs/[1]/x"])
def test_brackets_and_colons_are_no_markup(text: str) -> None:
    file = io.StringIO()
    table = Table("name", title=text)
    table.add_row(text)
    console = plain_console(file=file, width=80)
    console.print(table)
    console.print(f"The model of {text} is there.")
    assert file.getvalue().count(text) == 3
