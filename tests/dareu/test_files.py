import dataclasses
import enum
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from dareu.files import (
    append_jsonl,
    atomic_file,
    atomic_folder,
    content_hash,
    read_yaml,
    to_plain,
    write_json,
    write_yaml,
)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_a_file_appears_at_the_end_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt" and not path.exists()
    assert path.read_text() == "half" and names(path.parent) == ["file.txt"]
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("other")
        raise RuntimeError
    assert path.read_text() == "half" and names(path.parent) == ["file.txt"]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(path) as temporary:
        (temporary / "b").write_text("2")
        raise RuntimeError
    assert names(tmp_path) == ["model"] and names(path) == ["a"]
    with atomic_folder(path) as temporary:
        (temporary / "c").write_text("3")
        assert names(path) == ["a"]
    assert names(tmp_path) == ["model"] and names(path) == ["c"]


def test_the_old_folder_comes_back_where_the_new_one_cannot_be_put(tmp_path):
    path = tmp_path / "model"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(FileNotFoundError), atomic_folder(path) as temporary:
        temporary.rmdir()
    assert names(tmp_path) == ["model"] and names(path) == ["a"]


class Mode(enum.StrEnum):
    FAST = "fast"


@dataclasses.dataclass
class Inner:
    path: Path
    mode: Mode


def test_plain_values():
    value = {"a": (1, np.int64(2), np.float32(0.5)), 3: Inner(Path("x/y"), Mode.FAST), "b": [True, None, "é"]}
    plain = to_plain(value)
    assert plain == {"a": [1, 2, 0.5], "3": {"path": "x/y", "mode": "fast"}, "b": [True, None, "é"]}
    assert [type(item) for item in plain["a"]] == [int, int, float]
    assert type(plain["3"]["mode"]) is str and plain["b"][0] is True


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "finite numbers only, got nan"),
        (float("-inf"), "got -inf"),
        (object(), "not hold a value of type object"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, value, message):
    for write in (write_json, write_yaml, append_jsonl):
        with pytest.raises(ValueError, match=re.escape(message)):
            write(tmp_path / "file", {"deep": [value]})
    assert names(tmp_path) == []


def test_json_yaml_and_lines_read_back(tmp_path):
    value = {"b": [1, 1e-05, None], "a": "1e-3", "name": "Łucja"}
    write_json(tmp_path / "x.json", value)
    write_yaml(tmp_path / "x.yaml", value, comment="one\ntwo")
    append_jsonl(tmp_path / "logs" / "x.jsonl", value)
    append_jsonl(tmp_path / "logs" / "x.jsonl", {"c": 2})
    text = (tmp_path / "x.yaml").read_text(encoding="utf-8")
    assert text.startswith("# one\n# two\nb:") and yaml.safe_load(text) == value
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == value
    lines = (tmp_path / "logs" / "x.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [value, {"c": 2}]


def test_a_yaml_of_options_is_read_or_what_is_wrong_with_it_said(tmp_path):
    path = tmp_path / "x.yaml"
    write_yaml(path, {"density": 0.5}, comment="half")
    assert read_yaml(path) == {"density": 0.5}
    path.write_text("# nothing yet\n")
    assert read_yaml(path) == {}
    path.write_text("- density\n")
    with pytest.raises(ValueError, match=r"x\.yaml holds a list, not options"):
        read_yaml(path)
    path.write_text("density: [0.5\nseed: 1\n")
    with pytest.raises(ValueError, match=r"x\.yaml cannot be read as YAML: .* line 2"):
        read_yaml(path)
    path.write_bytes(b"density: \xff\n")
    with pytest.raises(ValueError, match=r"x\.yaml cannot be read as YAML"):
        read_yaml(path)
    with pytest.raises(ValueError, match="There is no file"):
        read_yaml(tmp_path / "other.yaml")


def test_the_hash_of_settings_ignores_the_order_of_keys_and_nothing_else():
    base = content_hash({"lr": 1e-3, "steps": 10})
    assert base == content_hash({"steps": 10, "lr": 0.001})
    assert len({base, content_hash({"lr": 1e-3, "steps": 11}), content_hash({"lr": 1e-3}), content_hash([10])}) == 4
    assert content_hash("1") != content_hash(1) != content_hash(True)
    assert (
        base == "05229bf8b975e2745c0dd4531c4d14b891aea643621b4bf71742b4e35de3ddc3"
    )  # the same on every machine, for good


def test_the_hash_of_a_folder_is_of_names_and_contents(tmp_path):
    def model(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        return content_hash({"model": tmp_path / name, "seed": 0})

    same = {"config.json": "{}", "sub/weights": "ab"}
    first = model("first", same)
    assert first == model("second", dict(reversed(same.items())))
    others = [
        {"config.json": "{}", "sub/weights": "ac"},
        {"config.json": "{}", "weights": "ab"},
        {"config.json": "{}ab"},
    ]
    assert len({first, *(model(f"other{i}", files) for i, files in enumerate(others))}) == 4
    assert content_hash(tmp_path / "first" / "config.json") == content_hash(tmp_path / "second" / "config.json")
    with pytest.raises(ValueError, match="does not exist"):
        content_hash({"model": tmp_path / "none"})


def test_yaml_keeps_every_break_of_a_line(tmp_path):
    value = {"owners": ["Ann\x85Bo", "Cy\u2028Di", "E\u2029\nF", "Zo\u00e9 \u6771"]}
    write_yaml(tmp_path / "a.yaml", value)
    assert read_yaml(tmp_path / "a.yaml") == value
    assert "Zo\u00e9 \u6771" in (tmp_path / "a.yaml").read_text(encoding="utf-8")
