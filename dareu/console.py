"""Where programs print to: texts of people, and names of theirs and of files, as they are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(piped_width: int | None = None, **options: Any) -> Console:
    """Rich's console, to which brackets are no markup and words between colons no pictures.

    Args:
        piped_width: Its width where the output is no terminal; None: as rich finds.
        options: Further ones of rich's.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else piped_width
    return Console(**{"width": width, "markup": False, "emoji": False, **options})
