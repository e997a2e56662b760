import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from dareu.plugins import build, needed_parameters, plugin_name, plugin_source, resolve

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


def test_near_names_are_told():
    with pytest.raises(ValueError, match=re.escape("'tfdif' is no built-in name, module or Python file (did you mean")):
        resolve("tfdif", {"tfidf": 1, "llm": 2})


def test_a_plug_in_names_what_it_needs_and_has_options():
    def plugin(answers, golds, *, limit=3): ...

    assert needed_parameters(plugin, ["golds", "answers", "nll"], {"limit": 1}, "The metric") == ("answers", "golds")

    class Plugin:
        def __init__(self, answers, path, limit=3, **more): ...

    assert needed_parameters(Plugin, ["answers"], {"path": "x", "other": 1}, "The metric") == ("answers",)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "The metric 'x' asks for path: there are answers, nll."),
        ({"path": 1, "limits": 2}, "The metric 'x' has no option limits: its options are path, limit."),
        ({"path": 1, "answers": 2}, "The metric 'x' has no option answers: its options are path, limit."),
    ],
)
def test_a_plug_in_that_asks_for_what_nobody_offers_or_is_given_what_it_does_not_take(options, complaint):
    def plugin(answers, path, *, limit=3): ...

    with pytest.raises(ValueError, match=f"^{re.escape(complaint)}$"):
        needed_parameters(plugin, ["answers", "nll"], options, "The metric 'x'")


def test_only_what_is_asked_for_is_made():
    made = []

    def offer(name):
        return lambda: made.append(name) or name.upper()

    def plugin(answers, *, limit=3):
        return answers, limit

    offered = {name: offer(name) for name in ("answers", "nll")}
    assert build(plugin, offered, {"limit": 5}, "The metric") == ("ANSWERS", 5)
    assert made == ["answers"]


def test_the_source_of_a_plug_in(installed, tmp_path, monkeypatch):
    file = write(tmp_path / "mine.py", "value = 1")
    write(tmp_path / "alone_plugin.py", "value = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugin_source(f"{file}:value") == [file]
    assert plugin_source("alone_plugin:value") == [tmp_path / "alone_plugin.py"]
    assert set(plugin_source("dareu_example_plugin:BrevityReward")) == set(
        (PACKAGE / "dareu_example_plugin").glob("*.py")
    )
    for nothing in (
        "tfidf",
        "no_such_package:Name",
        "no.such.module:Name",
        f"{tmp_path}/gone.py:Name",
        "sys:path",
        "json: {x}",
    ):
        assert plugin_source(nothing) == []
    assert plugin_name(f"{file}:value") == "value" and plugin_name("tfidf") == "tfidf"


def test_a_package_without_an_init_has_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare_plugins").mkdir()
    file = tmp_path / "bare_plugins" / "score.py"
    file.write_text("def mine(): ...", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugin_source("bare_plugins.score:mine") == [file]
