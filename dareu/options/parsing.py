"""TRL's parser, which refuses a `--config` that YAML reads as something else than it says."""

from __future__ import annotations

import difflib
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import yaml
from trl import TrlParser

#: Options that hold names and values of the data, where a number stands for its text.
_OF_DATA = ("forget_owners", "exclude_owners", "part_values", "split_map")
#: Of these, the ones that mean something else where they are left out.
_PEOPLE = ("forget_owners", "exclude_owners")


class OptionParser(TrlParser):  # type: ignore[misc]  # TRL gives it no types
    """`TrlParser`, that takes `--config=FILE` as well, and reads an option as it is written or not at all."""

    def parse_args_and_config(
        self, args: Iterable[str] | None = None, return_remaining_strings: bool = False, **kwargs: Any
    ) -> tuple[Any, ...]:
        """As TRL's.

        Raises:
            ValueError: There is no such option; the config is no file, has an option twice, names nobody as an owner
                (Null, ~), or a name or value of the data as a number that YAML changes (010 is 8); or an option that is
                a text is none.
        """
        words = [part for word in (sys.argv[1:] if args is None else args) for part in _parted(word)]
        if "--config" in words:
            _check_config("".join(words[words.index("--config") + 1 :][:1]))
        *found, left = super().parse_args_and_config(words, return_remaining_strings=True, **kwargs)
        if left and not return_remaining_strings:
            raise ValueError(self._unknown(left))
        return (*found, left) if return_remaining_strings else tuple(found)

    def _unknown(self, left: list[str]) -> str:
        """Says what is wrong with words that no option took, as they stand behind each other."""
        name = next((word.partition("=")[0].lstrip("-") for word in left if word.startswith("-")), None)
        if name is None:
            return f"{left[0]!r} belongs to no option: put a value of several words in quotes."
        known = [option.name for kind in self.dataclass_types for option in fields(kind) if option.init]
        near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
        return f"There is no option {name}{'' if near else ' here'}: " + (
            f"the nearest is {near[0]}." if near else "--help lists those there are."
        )

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        """As TRL's, which takes a value of any type for a text."""
        for kind in self.dataclass_types:
            hints = get_type_hints(kind, include_extras=True)
            for option in fields(kind):
                if option.name in kwargs:
                    _check_text(option, kwargs[option.name], set(_kinds(hints[option.name])))
        left: list[str] = super().set_defaults_with_config(**kwargs)
        return left


def _parted(word: str) -> list[str]:
    return ["--config", word.removeprefix("--config=")] if word.startswith("--config=") else [word]


def _check_text(option: Field[Any], value: Any, kinds: set[Any]) -> None:
    is_null = value is None and isinstance(option.default, str)
    is_other = value is not None and not isinstance(value, tuple(kind for kind in kinds if isinstance(kind, type)))
    is_flag = value is not None and value == option.metadata.get("const")  # as true of fsdp
    if str in kinds and not is_flag and ((is_null and type(None) not in kinds) or is_other):
        raise ValueError(
            f"{option.name} is {value!r}, which is no text but of type {type(value).__name__} to YAML: put it in "
            "quotes where it is one."
        )


def _kinds(hint: Any) -> Iterator[Any]:
    """The types that an annotation allows."""
    if get_origin(hint) is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    else:
        yield get_origin(hint) or hint


def _check_config(path: str) -> None:
    if not path:
        raise ValueError("--config names no file: write its path behind it.")
    try:
        with open(path, encoding="utf-8") as file:
            root = yaml.compose(file, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8, from byte {error.start} on: save it as UTF-8.") from error
    if root is not None:
        _check_twice(root, path)
    for key, node in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value in _PEOPLE and node.tag.endswith(":null") and node.value != "null":  # as a run's own config has it
            raise ValueError(
                f"{key.value} is {node.value or 'empty'} in {path}, which is nobody to YAML: put the name in quotes if "
                "somebody is called that, or leave the option out."
            )
        for item in _scalars(node) if key.value in _OF_DATA else ():
            if item.tag.endswith(":int") and (read := str(yaml.safe_load(item.value))) != item.value:
                raise ValueError(
                    f"{key.value} names {item.value} in {path}, which YAML reads as the number {read}: put it in "
                    "quotes."
                )


def _scalars(node: yaml.Node) -> Iterator[yaml.Node]:
    """What a list or mapping holds, or the one value itself."""
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    else:
        yield node


def _check_twice(node: yaml.Node, path: str) -> None:
    """Of a key that stands twice in a mapping, YAML would take the last."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1 and key != "<<"]:
            raise ValueError(f"{path} has {twice[0]} twice: keep one.")
        for pair in node.value:
            for part in pair:
                _check_twice(part, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_twice(item, path)
