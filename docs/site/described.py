"""Gives the reference what the sources say of a name outside of docstrings."""

import ast
from typing import Any

import griffe


class Described(griffe.Extension):
    """An option's help and the `#:` comment above a constant become docstrings; `Annotated[T, …]` is shown as T."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Called for each assignment that griffe reads, before it makes parameters of a dataclass's fields."""
        if isinstance(attr.annotation, griffe.ExprSubscript) and attr.annotation.canonical_name == "Annotated":
            shown = attr.annotation.slice
            attr.annotation = shown.elements[0] if isinstance(shown, griffe.ExprTuple) else shown
        if isinstance(attr.value, griffe.ExprCall) and attr.value.canonical_name == "field":
            options = {part.name: part.value for part in attr.value.arguments if isinstance(part, griffe.ExprKeyword)}
            if attr.docstring is None and "metadata" in options:
                attr.docstring = _docstring(attr, _help(str(options["metadata"])))
            attr.value = options.get("default") or (f"{made}()" if (made := options.get("default_factory")) else None)
        elif attr.docstring is None and (comment := _comment(attr)):
            attr.docstring = _docstring(attr, comment)


def _docstring(attr: griffe.Attribute, text: str) -> griffe.Docstring:
    return griffe.Docstring(text, lineno=attr.lineno, parent=attr)


def _help(metadata: str) -> str:
    """The text under "help" in the source of a dict; what an f-string fills in stays as it is written."""
    written = ast.parse(metadata, mode="eval").body
    assert isinstance(written, ast.Dict)
    text = dict(zip([ast.unparse(key) for key in written.keys if key], written.values, strict=True))["'help'"]
    if isinstance(text, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else ast.unparse(part) for part in text.values)
    return str(ast.literal_eval(text))


def _comment(attr: griffe.Attribute) -> str:
    """The lines that begin with `#:` right above an assignment."""
    lines: list[str] = []
    for line in reversed(attr.module.lines_collection[attr.module.filepath][: (attr.lineno or 1) - 1]):
        if not line.startswith("#:"):
            break
        lines.insert(0, line.removeprefix("#:").strip())
    return "\n".join(lines)
