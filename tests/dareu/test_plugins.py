import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from dareu.plugins import resolve

PACKAGE = Path(__file__).resolve().parent.parent / "plugin_package"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """The plug-in package, importable as pip would make it."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    yield
    sys.modules.pop("dareu_example_plugin", None)


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path


def test_a_known_name_comes_first_and_builds_nothing():
    marker = object()
    assert resolve("tfidf", {"tfidf": marker}) is marker
    assert resolve("a:b", {"a:b": marker}) is marker


def test_a_classifier_of_an_installed_package(installed):
    texts, owners = (
        ["one two", "one two three", "a b c d e f g h", "a b c d e f g"],
        ["Ann", "Ann", "Bob", "Bob"],
    )
    classifier = resolve("dareu_example_plugin:LengthClassifier", {})(scale=1.0).fit(texts, owners)
    probabilities = classifier.predict_proba(texts)
    assert list(classifier.classes_) == ["Ann", "Bob"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)
    assert list(classifier.classes_[probabilities.argmax(axis=1)]) == owners
    assert classifier.predict_proba([]).shape == (0, 2)


def test_a_reward_of_an_installed_package(installed):
    reward = resolve("dareu_example_plugin:BrevityReward", {})(limit=2)
    assert reward.__name__ == "brevity_2"
    assert reward(["p"] * 3, ["one two", "one two three", ""], owner=["Ann"] * 3) == [1.0, 0.0, None]
    copy = pickle.loads(pickle.dumps(reward))
    assert copy(["p"], ["one"]) == [1.0]


def test_a_file_is_imported_once_whatever_its_spelling(tmp_path, monkeypatch):
    file = write(
        tmp_path / "mine.py",
        f"""
from dataclasses import dataclass
from pathlib import Path

with Path({str(tmp_path / "imports")!r}).open("a") as log:
    log.write("x")

@dataclass
class Thing:
    size: int = 3
""",
    )
    monkeypatch.chdir(tmp_path)
    thing = resolve("mine.py:Thing", {})
    assert resolve(f"{file}:Thing", {}) is thing is resolve("./mine.py:Thing", {})
    assert (tmp_path / "imports").read_text() == "x"
    assert pickle.loads(pickle.dumps(thing(7))) == thing(7)


def test_two_files_of_one_name_stay_apart(tmp_path):
    first = resolve(f"{write(tmp_path / 'a' / 'mine.py', 'value = 1')}:value", {})
    second = resolve(f"{write(tmp_path / 'b' / 'mine.py', 'value = 2')}:value", {})
    assert (first, second) == (1, 2)


def test_a_file_that_fails_can_be_mended_and_tried_again(tmp_path):
    file = write(tmp_path / "broken.py", "raise RuntimeError('half way')")
    with pytest.raises(RuntimeError, match="half way"):
        resolve(f"{file}:value", {})
    write(file, "value = 'a longer text than before'")
    assert resolve(f"{file}:value", {}) == "a longer text than before"


def test_a_name_that_a_package_loads_lazily(tmp_path, monkeypatch):
    write(tmp_path / "lazy_plugin" / "__init__.py", "def __getattr__(name):\n    return name.upper()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("lazy_plugin:thing", {}) == "THING"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("tfidff", "is no built-in name"),
        ("./mine:Name", "is no built-in name, module or Python file"),
        (":Name", "is no built-in name"),
        ("module:", "is no built-in name"),
        ("no_such_package:Name", "a module that is not installed (no_such_package)"),
        ("json.no_such_module:Name", "a module that is not installed (json.no_such_module)"),
        ("json:NoSuchName", "names nothing that json defines"),
        ("no/such/file.py:Name", "a file that does not exist"),
    ],
)
def test_an_unknown_name_says_what_could_stand_there(spec, problem):
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        resolve(spec, {"tfidf": 1, "llm": 2})
    message = str(caught.value)
    assert repr(spec) in message and "(llm, tfidf)" in message
    assert "pkg.mod:Name" in message and "path/to/file.py:Name" in message
    assert "\n" not in message


def test_what_a_plugin_lacks_is_not_taken_for_the_plugin(tmp_path, monkeypatch):
    write(tmp_path / "needy_plugin.py", "import no_such_dependency")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        resolve("needy_plugin:Name", {})
