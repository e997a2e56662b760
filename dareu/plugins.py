"""Plug-ins of every kind: the object that a name stands for, what it asks for by its parameters, and its source.

Every kind has an open dict of built-in names (`dareu.methods.METHODS` and its like). Whatever is in one, or is named
as `pkg.mod:Name` or `path/to/file.py:Name`, says by its parameters what it wants to be given: one without a default
names what is offered to plug-ins of its kind, one with a default is an option of its own.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def resolve(spec: str, known: Mapping[str, Any]) -> Any:
    """The object that `spec` names, usually a class or a function.

    Args:
        spec: A key of `known`, `pkg.mod:Name`, or `path/to/file.py:Name`.
        known: The built-in short names of this kind of plug-in.

    Returns:
        `known[spec]`, or the attribute `Name` of the module or file. A file is imported once per absolute
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


def needed_parameters(
    plugin: Callable[..., Any], offered: Collection[str], options: Mapping[str, Any], what: str
) -> tuple[str, ...]:
    """What a plug-in asks for, of what is offered, once it is known that its options are its own.

    Args:
        plugin: A function, or a class whose constructor is looked at.
        offered: Names that a parameter without a default may have.
        options: What else it will be given, by name; a parameter without a default may be one of these too.
        what: Names the plug-in in errors, such as "The metric 'rouge'".

    Returns:
        The names, in the order of its parameters.

    Raises:
        ValueError: It cannot be called, asks for something that is not offered, or has no such option.
    """
    if not callable(plugin):
        raise ValueError(f"{what} is of type {type(plugin).__name__}: name a function or a class.")
    parameters = inspect.signature(plugin).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    wanted = [p.name for p in named if p.default is p.empty]
    needs = tuple(name for name in wanted if name in offered)
    if unknown := [name for name in wanted if name not in offered and name not in options]:
        there = f"there are {', '.join(offered)}" if offered else "give it among its options"
        raise ValueError(f"{what} asks for {', '.join(unknown)}: {there}.")
    own = [p.name for p in named if p.name not in needs]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if foreign := [name for name in options if name in needs or not (name in own or takes_any)]:
        raise ValueError(f"{what} has no option {', '.join(foreign)}: its options are {', '.join(own) or 'none'}.")
    return needs


def build(
    plugin: Callable[..., Any], offered: Mapping[str, Callable[[], Any]], options: Mapping[str, Any], what: str
) -> Any:
    """Calls a plug-in with what it asks for and its options; nothing else that is offered is made.

    Args:
        plugin: See `needed_parameters`.
        offered: For each name, a function that makes what it stands for.
        options: See `needed_parameters`.
        what: See `needed_parameters`.

    Raises:
        ValueError: As `needed_parameters` says.
    """
    needs = needed_parameters(plugin, offered, options, what)
    return plugin(**{name: offered[name]() for name in needs}, **options)


def plugin_name(spec: str) -> str:
    """What a plug-in is called in tables and logs: a built-in name as it is, of the other spellings the last part."""
    return spec.rpartition(":")[2]


def plugin_source(spec: str) -> list[Path]:
    """The Python files that a plug-in stands in; none for a built-in name, or where there is no such module.

    Of a package they are all of its files, for any of them may take part.

    Args:
        spec: As `resolve` takes it.
    """
    origin, _, name = spec.rpartition(":")
    if not (origin and name.isidentifier()):
        return []
    if origin.endswith(".py"):
        path = Path(origin).expanduser()
        return [path] if path.is_file() else []
    try:
        module = importlib.util.find_spec(origin)
        package = importlib.util.find_spec(origin.partition(".")[0])
    except (ImportError, ValueError):
        return []
    if module is None or package is None:
        return []
    if package.origin is None:  # a package without an __init__.py
        folders = package.submodule_search_locations or ()
        return sorted(file for folder in folders for file in Path(folder).rglob("*.py"))
    if not package.origin.endswith(".py"):
        return []
    file = Path(package.origin)
    return sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]


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
    near = difflib.get_close_matches(spec, known, n=3)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    return (
        f"{spec!r} {problem}{meant}; write a built-in name ({', '.join(sorted(known)) or 'there are none here'}), "
        "pkg.mod:Name, or path/to/file.py:Name."
    )
