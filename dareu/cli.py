"""The `dareu` command: launches a recipe or a tool by its name, and imports none of them."""

import argparse
import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from dareu.files import read_yaml

#: Flags of `accelerate launch` that may stand among a recipe's arguments.
LAUNCH_FLAGS = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `dareu RECIPE [arguments]`: `accelerate launch` of the recipe's file with those arguments.

    `dareu TOOL [arguments]` runs a program of `dareu.tools`, which trains nothing, as one plain process.

    Args:
        argv: The arguments after the program's name; those of the command line by default.

    Returns:
        The exit status of the recipe or tool.
    """
    recipes, tools = find_recipes(), find_tools()
    width = max((len(name) for name in (*recipes, *tools)), default=0)
    parser = argparse.ArgumentParser(
        prog="dareu",
        description="Make a language model forget whose data it was trained on.",
        epilog="recipes:\n"
        + "".join(f"  {name:{width}}  {_summary(path)}\n" for name, path in recipes.items())
        + "\ntools:\n"
        + "".join(f"  {name:{width}}  {_summary(path)}\n" for name, path in tools.items())
        + "\n'dareu RECIPE --help' lists the options of a recipe or tool. A recipe runs as one process on one"
        "\ndevice, with as many threads as OMP_NUM_THREADS says (default 1), unless 'accelerate config' set up"
        f"\notherwise or --accelerate_config names one of {', '.join(find_accelerate_configs())}, or a file; beside it"
        f"\ngo --{', --'.join(LAUNCH_FLAGS)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dareu {version('dareu')}")
    parser.add_argument("recipe", metavar="RECIPE", help="one of the names below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the recipe itself takes")
    arguments = parser.parse_args(argv)
    if arguments.recipe in tools:
        return run_tool(arguments.recipe, arguments.arguments)
    if arguments.recipe not in recipes:
        parser.error(
            f"there is no recipe {arguments.recipe!r}; the recipes are {', '.join(recipes)}, "
            f"and the tools {', '.join(tools)}"
        )
    try:
        return launch(recipes[arguments.recipe], arguments.arguments)
    except ValueError as error:
        parser.error(str(error))


def find_recipes() -> dict[str, Path]:
    """The files of the installed recipes by name, in alphabetical order."""
    files = (path for folder in _recipe_folders() for path in folder.glob("[!_]*.py"))
    return {path.stem: path for path in sorted(files)}


def find_tools() -> dict[str, Path]:
    """The files of the tools by name, in alphabetical order."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "tools").glob("[!_]*.py"))}


def find_accelerate_configs() -> dict[str, Path]:
    """The configs of `accelerate launch` that are shipped, by name, in alphabetical order."""
    files = (path for folder in _recipe_folders() for path in folder.glob("accelerate/*.yaml"))
    return {path.stem: path for path in sorted(files)}


def launch(script: Path, arguments: Sequence[str]) -> int:
    """Runs a script as `accelerate launch` does and returns its exit status (128 + n if signal n ended it).

    Where `accelerate config` was never run and `--accelerate_config` is not among the arguments, the flags
    that it would otherwise guess with a warning are given: one process, no mixed precision of its own, no
    compilation.

    Args:
        script: The file to run.
        arguments: Of the script. `--accelerate_config NAME|path` and `LAUNCH_FLAGS` go to the launcher.

    Raises:
        ValueError: There is no such config, or accelerate would silently start one process instead of many.
    """
    # Here, since both import torch.
    from accelerate.commands.config import default_config_file
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    parser = argparse.ArgumentParser(prog="dareu", usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False)
    for name in ("accelerate_config", *LAUNCH_FLAGS):
        parser.add_argument(f"--{name}")
    wanted, rest = parser.parse_known_args(arguments)
    flags = [f"--{name}={value}" for name in LAUNCH_FLAGS if (value := getattr(wanted, name)) is not None]
    config = default_config_file if os.path.isfile(default_config_file) else None
    if wanted.accelerate_config is not None:
        config = _accelerate_config(wanted.accelerate_config)
        flags.append(f"--config_file={config}")
    _check_processes(config, wanted.num_processes)
    if config is None:
        flags = ["--num_processes=1", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", *flags]
    try:
        launch_command(launch_command_parser().parse_args([*flags, str(script), *rest]))
    except subprocess.CalledProcessError as error:
        status = error.returncode
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
    except KeyboardInterrupt:
        return 130
    else:
        return 0
    return status if status >= 0 else 128 - status


def run_tool(name: str, arguments: Sequence[str]) -> int:
    """Runs a tool of `find_tools` in a process of its own and returns its exit status."""
    # -P: no module of the working directory takes the place of an installed one.
    try:
        return subprocess.run([sys.executable, "-P", "-m", f"dareu.tools.{name}", *arguments], check=False).returncode
    except KeyboardInterrupt:
        return 130


def _accelerate_config(name: str) -> str:
    if Path(name).is_file():
        return name
    shipped = find_accelerate_configs()
    if name not in shipped:
        raise ValueError(f"accelerate_config is {name!r}: give a file, or one of {', '.join(shipped)}.")
    return str(shipped[name])


def _check_processes(config: str | None, flag: str | None) -> None:
    """Refuses what `accelerate launch` would silently run as one process."""
    settings = read_yaml(config) if config is not None else {}
    number = int(flag if flag is not None else settings.get("num_processes", 1))
    kind = settings.get("distributed_type") or "NO"  # YAML reads a bare NO as false
    if number > 1 and kind in ("NO", "MULTI_CPU"):
        raise ValueError(
            f"{number} processes were asked for, but accelerate starts one where distributed_type is {kind}: give "
            "--accelerate_config ddp, on a CPU with --use_cpu."
        )


def _recipe_folders() -> list[Path]:
    spec = importlib.util.find_spec("dareu.recipes")
    assert spec is not None and spec.submodule_search_locations is not None
    return [Path(folder) for folder in spec.submodule_search_locations]


def _summary(path: Path) -> str:
    """The first line of a script's docstring, read without running it."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
