"""Files that appear whole or not at all, and a hash of what went into a piece of work."""

import dataclasses
import hashlib
import json
import math
import numbers
import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

#: Bytes of a name that leave room for endings and hashes, where 255 are allowed.
_LONGEST_NAME = 100


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` to write to, renamed to `path` at the end of the block.

    Missing parent folders are made. If the block raises, the temporary file is removed and `path` is as it
    was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new empty folder beside `path` to fill, renamed to `path` at the end of the block.

    What stood at `path` is replaced as a whole. If the block raises, the temporary folder is removed and
    `path` is as it was.
    """
    path = Path(path)
    temporary, replaced = _beside(path), _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            path.rename(replaced)  # a folder that is not empty cannot be renamed over
        temporary.rename(path)
    except BaseException:
        if replaced.exists():
            replaced.rename(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def readable_name(text: str) -> str:
    """The text as a part of a file's name: what is no letter, number, point or hyphen is an underscore, cut if long."""
    name = re.sub(r"[^\w.-]", "_", text)
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")


def file_name(text: str) -> str:
    """A name for a file or folder that can be read for the text, and is no other text's.

    It ends with a hash of the text where `readable_name` changes that, where it would be hidden, and where it has
    capitals or decomposed letters, which some file systems do not tell from others.

    >>> file_name("art"), file_name("a/b")
    ('art', 'a_b-c14cddc0')
    """
    name = readable_name(text)
    plain = unicodedata.normalize("NFC", text).casefold().lstrip(".-")
    if name == text == plain and name:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return "-".join(filter(None, (name.lstrip(".-"), digest)))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON (see `to_plain`), atomically."""
    text = json.dumps(to_plain(value), indent=2, ensure_ascii=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    """Escapes breaks of lines of Unicode's, which YAML folds into blanks where they stand by themselves."""


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    folds = any(sign in text for sign in "\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if folds else None)


_Dumper.add_representer(str, _text)


def write_yaml(path: str | os.PathLike[str], value: Any, *, comment: str = "") -> None:
    """Writes `value` as YAML (see `to_plain`) under the lines of `comment`, atomically."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    body = yaml.dump(to_plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    with atomic_file(path) as temporary:
        temporary.write_text(head + body, encoding="utf-8")


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file holds none.

    Raises:
        ValueError: There is no such file, it is no YAML, or what it holds is not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}: check the path.")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(value, dict | None):
        raise ValueError(f"{path} holds a {type(value).__name__}, not options: write one `name: value` a line.")
    return value or {}


def append_jsonl(path: str | os.PathLike[str], value: Any) -> None:
    """Appends `value` to `path` as one line of JSON, in a single write."""
    line = json.dumps(to_plain(value), ensure_ascii=False) + "\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def content_hash(value: Any) -> str:
    """A SHA-256 of what `value` says, as 64 hexadecimal digits.

    Args:
        value: Anything that `to_plain` takes. Each `Path` in it stands for the content of that file, or
            for the relative names and contents of all files under that folder: the same model under another
            name has the same hash. The order of the keys of a mapping does not count.

    Raises:
        ValueError: If a `Path` does not exist.
    """
    text = json.dumps(to_plain(value, path=_hash_of_path), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_plain(value: Any, *, path: Callable[[Path], Any] = str) -> Any:
    """`value` in what JSON and YAML share: dicts with string keys, lists, str, bool, int, float and None.

    Takes mappings, lists, tuples, dataclasses, enum members (their values), NumPy's numbers, and `Path`
    objects (through the function `path`).

    Raises:
        ValueError: For any other type, and for NaN or infinity, which JSON does not have.
    """
    match value:
        case Enum():
            return to_plain(value.value, path=path)
        case None | bool() | str():
            return value
        case Path():
            return path(value)
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            if not math.isfinite(value):
                raise ValueError(f"JSON and YAML files hold finite numbers only, got {value}.")
            return float(value)
        case Mapping():
            return {str(key): to_plain(item, path=path) for key, item in value.items()}
        case list() | tuple():
            return [to_plain(item, path=path) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_plain(getattr(value, field.name), path=path) for field in fields}
    kind = type(value).__name__
    raise ValueError(f"JSON and YAML do not hold a value of type {kind}; give numbers, strings or lists.")


def _hash_of_path(path: Path) -> Any:
    """The hash of a file, or the names and hashes of all files under a folder; no string equals them."""
    if path.is_file():
        with path.open("rb") as file:
            return {"file": hashlib.file_digest(file, "sha256").hexdigest()}
    if not path.is_dir():
        raise ValueError(f"{path} does not exist, so its content cannot be hashed; check the path.")
    files = sorted(item for item in path.rglob("*") if item.is_file())
    return {"folder": [[item.relative_to(path).as_posix(), _hash_of_path(item)] for item in files]}


def _beside(path: Path) -> Path:
    """A new name in the same folder, thus on the same disk, hidden, and with the same suffix."""
    return path.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{path.name}")
