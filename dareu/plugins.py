"""Turns the name of a plug-in, as written in YAML or on the command line, into the object it names."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def resolve(spec: str, known: Mapping[str, Any]) -> Any:
    """The object that ``spec`` names, usually a class or a function.

    Args:
        spec: A key of ``known``, ``pkg.mod:Name``, or ``path/to/file.py:Name``.
        known: The built-in short names of this kind of plug-in.

    Returns:
        ``known[spec]``, or the attribute ``Name`` of the module or file. A file is imported once per absolute
        path, under a module name of its own, so that what it defines can be pickled within this process.

    Raises:
        ValueError: If nothing goes by that name. An error that the plug-in raises while it is imported passes
            through unchanged, since its own traceback says more.
    """
    if spec in known:
        return known[spec]
    origin, _, name = spec.rpartition(":")
    is_file = origin.endswith(".py")
    if not (origin and name) or (origin.startswith(".") and not is_file):
        raise ValueError(_message(spec, "is no built-in name, module or Python file", known))
    if is_file:
        path = Path(origin).expanduser().resolve()
        if not path.is_file():
            raise ValueError(_message(spec, f"names a file that does not exist ({path})", known))
        module = _import_file(path)
    else:
        try:
            module = importlib.import_module(origin)
        except ModuleNotFoundError as error:
            if error.name is None or f"{origin}.".startswith(f"{error.name}."):
                problem = f"names a module that is not installed ({origin})"
                raise ValueError(_message(spec, problem, known)) from None
            raise  # the plug-in was found; something that it imports was not
    try:
        return getattr(module, name)  # not vars(module)[name]: some packages load a name when it is asked for
    except AttributeError:
        raise ValueError(_message(spec, f"names nothing that {origin} defines", known)) from None


def _import_file(path: Path) -> ModuleType:
    """The module of a Python file, imported at most once under a name made from its absolute path."""
    module_name = f"dareu_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None  # true for every name that ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # before it runs: pickle and dataclasses look classes up here
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return sys.modules[module_name]


def _message(spec: str, problem: str, known: Mapping[str, Any]) -> str:
    return (
        f"{spec!r} {problem}; write a built-in name ({', '.join(sorted(known)) or 'there are none here'}), "
        "pkg.mod:Name, or path/to/file.py:Name."
    )
