"""The ``dareu`` command: launches a recipe by its name, and imports none of them."""

import argparse
import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``dareu RECIPE [arguments]``: ``accelerate launch`` of the recipe's file with those arguments.

    Args:
        argv: The arguments after the program's name; those of the command line by default.

    Returns:
        The exit status of the recipe.
    """
    recipes = find_recipes()
    width = max((len(name) for name in recipes), default=0)
    parser = argparse.ArgumentParser(
        prog="dareu",
        description="Make a language model forget whose data it was trained on.",
        epilog="recipes:\n"
        + "".join(f"  {name:{width}}  {_summary(path)}\n" for name, path in recipes.items())
        + "\n'dareu RECIPE --help' lists the options of a recipe. It runs as one process on one device, with"
        "\nas many threads as OMP_NUM_THREADS says (default 1), unless 'accelerate config' set up otherwise.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="one of the names below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the recipe itself takes")
    arguments = parser.parse_args(argv)
    if arguments.recipe not in recipes:
        parser.error(f"there is no recipe {arguments.recipe!r}; the recipes are {', '.join(recipes)}")
    return launch(recipes[arguments.recipe], arguments.arguments)


def find_recipes() -> dict[str, Path]:
    """The files of the installed recipes by name, in alphabetical order."""
    spec = importlib.util.find_spec("dareu.recipes")
    assert spec is not None and spec.submodule_search_locations is not None
    files = (path for folder in spec.submodule_search_locations for path in Path(folder).glob("[!_]*.py"))
    return {path.stem: path for path in sorted(files)}


def launch(script: Path, arguments: Sequence[str]) -> int:
    """Runs a script as ``accelerate launch`` does and returns its exit status (128 + n if signal n ended it).

    Where ``accelerate config`` was never run, the flags that it would otherwise guess with a warning are
    given: one process, no mixed precision of its own, no compilation.
    """
    # Here, since both import torch.
    from accelerate.commands.config import default_config_file
    from accelerate.commands.launch import launch_command, launch_command_parser

    flags: list[str] = []
    if not os.path.isfile(default_config_file):
        flags = ["--num_processes=1", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    try:
        launch_command(launch_command_parser().parse_args([*flags, str(script), *arguments]))
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode >= 0 else 128 - error.returncode
    except KeyboardInterrupt:
        return 130
    return 0


def _summary(path: Path) -> str:
    """The first line of a script's docstring, read without running it."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
