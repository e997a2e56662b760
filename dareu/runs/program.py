"""A recipe as a program: what it logs, how it stops at bad input, and how its processes part."""

import errno
import gc
import logging
import os
import sys
from collections.abc import Callable

import yaml
from safetensors import SafetensorError


def run_program(main: Callable[[], None], name: str) -> None:
    """Runs a recipe's function as the main program of this process, which may be one of several.

    The first process logs from `INFO` on, the others warnings. At the end the process group is taken down.

    Args:
        main: The recipe; it reads `sys.argv`.
        name: The recipe's name, which its error message begins with.

    Raises:
        SystemExit: `main` raised a `ValueError`, or did not find a file, or a folder in its place, or the other way
            round, or the disk is full, or its `--config` is no YAML; a sentence goes to stderr, and the exit status
            is 1.
    """
    main_process = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if main_process else logging.WARNING, format="%(message)s")
    try:
        main()
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    except FileNotFoundError as error:
        # Some libraries raise it with a sentence of their own and no name
        missing = error if error.filename is None else f"there is no file {error.filename}: check the path."
        sys.exit(f"{name}: {missing}")
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        place = error if error.filename is None else f"{error.filename}: {str(error.strerror).lower()}"
        sys.exit(f"{name}: {place}. Give another path.")
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _says_full(error):
            raise
        sys.exit(f"{name}: the disk is full. What is finished is whole: make room, and start the same again to go on.")
    except yaml.YAMLError as error:  # of the `--config` that TRL's parser reads
        sys.exit(f"{name}: the config cannot be read as YAML: {' '.join(str(error).split())}.")
    leave_process_group()


def _says_full(error: Exception) -> bool:
    """Whether Python, safetensors or torch, each in words of its own, found no room on the disk."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return f"os error {errno.ENOSPC}" in str(error) or "PytorchStreamWriter failed writing" in str(error)


def leave_process_group() -> None:
    """Takes down torch's process group, if there is one, while the interpreter still lives.

    A thread of Gloo may still hold tensors of the last collective operation, known to Python. Should it let go of them
    once the interpreter is on its way out, the process aborts after all its work is done ("terminate called without an
    active exception", https://github.com/pytorch/pytorch/pull/179291). The threads are joined with the group's last
    holder: call it once trainers are out of scope. A device mesh, as FSDP2's, outlives it and keeps its threads idle.
    """
    if "torch" not in sys.modules:  # of a tool that has no need of it
        return
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # a trainer lies in reference cycles, and its DDP module holds the group
        distributed.destroy_process_group()
