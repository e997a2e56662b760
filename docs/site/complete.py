"""Ends the build of the site with an error where a public name is missing from the reference."""

import ast
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocstrings import Inventory

PACKAGES = Path("build/typed")


def public_names() -> set[str]:
    """What each package lists in its `__all__`, with the package's name."""
    names = set()
    for path in PACKAGES.glob("dareu/**/__init__.py"):
        package = ".".join(path.parent.relative_to(PACKAGES).parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
                names |= {f"{package}.{name}" for name in ast.literal_eval(node.value)}
    return names


def on_post_build(config: Any) -> None:
    """Looks each name up in the inventory of what the pages describe; those of `dareu` itself are links on its page."""
    site = Path(config["site_dir"])
    with (site / "objects.inv").open("rb") as file:
        described = set(Inventory.parse_sphinx(file))
    face = (site / "reference" / "dareu.html").read_text(encoding="utf-8")
    names = public_names()
    assert names, f"no packages in {PACKAGES}"
    of_face = {name for name in names if name.count(".") == 1}
    # A function that its module is named like is described by its own path: the module has the shorter one.
    missing = {name for name in names - of_face if not {name, f"{name}.{name.rpartition('.')[2]}"} & described}
    missing |= {name for name in of_face if f'.{name.removeprefix("dareu.")}"' not in face}
    if missing:
        raise PluginError(
            f"The reference lacks {', '.join(sorted(missing))}: give each a docstring or a #: comment, and its package "
            "a page under docs/reference; docs/reference/dareu.md links what dareu itself shows."
        )
