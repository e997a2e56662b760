"""JSON files that one recipe writes and another reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_stored(path: str | os.PathLike[str], verb: str, holds: str, part: str, file: str) -> dict[str, Any]:
    """The object in a file, once it is known to be what it should be.

    Args:
        path: The file.
        verb: What makes it, which is the recipe's name too: "measure".
        holds: What it holds: "measurement".
        part: An object within it, without which it is something else: "metrics".
        file: What such files are called.

    Raises:
        ValueError: There is no such file, it is not whole, or it holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: {verb} that model first, with `dareu {verb}`.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no whole {holds} ({error}): delete it and {verb} again.") from error
    if not isinstance(found, dict) or not isinstance(found.get(part), dict):
        raise ValueError(f"{path} is no {holds} of `dareu {verb}`: name the {file} of a model.")
    return found
