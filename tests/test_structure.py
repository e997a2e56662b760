"""Holds the arrows between the packages: data flows one way, and nothing leans on a recipe."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
PARTS = {"dareu.classifiers", "dareu.rewards", "dareu.recipes"}
BARE = {"classifiers", "rewards", "recipes"}

#: The rooms of `dareu/`, in an order in which each imports only those before it.
ROOMS = ("models", "weights", "data", "masks", "deltas", "trainers", "methods", "metrics", "audits", "runs")
ROOMS += ("comparison", "report", "requests", "options", "tools")
#: What stands at the root: of use to every room, or to those that come after a room.
LOOSE = {"files": "", "values": "", "plugins": "", "console": "", "cli": "", "spunge": "data"}


def sources(package: str) -> Iterator[tuple[str, str]]:
    """The dotted name (`pkg.__init__` for a package's own) and the text of each module of a package."""
    folder = ROOT / FOLDERS[package]
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield ".".join([package, *parts]), path.read_text(encoding="utf-8")


def imports(module: str, source: str) -> set[str]:
    """The dotted names that a module imports, anywhere in it; a.b for `from a import b`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.rsplit(".", node.level)[0] + "." if node.level else ""
            names |= {f"{package}{node.module or ''}.{alias.name}".replace("..", ".") for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def forbidden(module: str, source: str) -> set[str]:
    """The imports of a module that go against the arrows."""
    ours = {name for name in imports(module, source) if within(name, "dareu")}
    bare = {name for name in imports(module, source) if name.split(".")[0] in BARE}
    if within(module, "dareu.classifiers"):
        allowed = {"dareu.classifiers"}
    elif within(module, "dareu.rewards"):
        allowed = {"dareu.rewards", "dareu.classifiers"}
    elif within(module, "dareu.recipes"):
        return bare | {name for name in ours if within(name, "dareu.recipes")}
    elif module == "dareu.__init__":  # the face, which shows the four packages as one
        return bare
    else:
        return bare | {name for name in ours if any(within(name, part) for part in PARTS)}
    return bare | {name for name in ours if not any(within(name, package) for package in allowed)}


@pytest.mark.parametrize("package", FOLDERS)
def test_the_arrows_hold(package):
    wrong = {module: found for module, source in sources(package) if (found := forbidden(module, source))}
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dareu.classifiers.llm", "import dareu"),
        ("dareu.classifiers.llm", "from dareu import data"),
        ("dareu.classifiers.llm", "def f():\n    from dareu.data.records import text_of"),
        ("dareu.classifiers.llm", "import rewards"),
        ("dareu.rewards.fluency", "from dareu.metrics import rouge"),
        ("dareu.rewards.fluency", "from .. import data"),
        ("dareu.metrics.rouge", "from dareu import rewards"),
        ("dareu.metrics.rouge", "from dareu.classifiers.llm import LLMClassifier"),
        ("dareu.metrics.rouge", "from ..classifiers import LLMClassifier"),
        ("dareu.cli", "import dareu.recipes.quickstart"),
        ("dareu.recipes.quickstart", "from dareu.recipes import finetune"),
        ("dareu.recipes.quickstart", "from . import finetune"),
        ("dareu.recipes.quickstart", "from classifiers import LLMClassifier"),
    ],
)
def test_an_import_against_the_arrows_is_found(module, source):
    assert forbidden(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "dareu.classifiers.llm",
            "import torch\nfrom dareu.classifiers.echo import strip_echo\nfrom . import echo",
        ),
        ("dareu.rewards.fluency", "from dareu.classifiers import strip_echo"),
        ("dareu.rewards.__init__", "from .fluency import FluencyReward"),
        ("dareu.metrics.rouge", "from dareu.data.records import text_of\nfrom ..data import records"),
        (
            "dareu.recipes.quickstart",
            "from dareu.classifiers import LLMClassifier\nfrom dareu import rewards",
        ),
    ],
)
def test_an_import_along_the_arrows_is_let_through(module, source):
    assert not forbidden(module, source)


def against_the_order(module: str, source: str) -> set[str]:
    """The imports of a module of `dareu/` from rooms that come after its own."""
    place = module.split(".")[1]
    if place == "__init__":  # the face shows all rooms
        return set()
    own = ROOMS.index(place) if place in ROOMS else ROOMS.index(LOOSE[place]) + 1 if LOOSE[place] else 0
    wrong = set()
    for name in imports(module, source):
        parts = name.split(".")
        if parts[0] != "dareu" or len(parts) < 2 or parts[1] == place:
            continue
        if parts[1] in ROOMS and not ROOMS.index(parts[1]) < own:
            wrong.add(name)
        if parts[1] in LOOSE and LOOSE[parts[1]] and not ROOMS.index(LOOSE[parts[1]]) < own:
            wrong.add(name)
    return wrong


def test_each_room_imports_only_those_before_it():
    wrong = {module: found for module, source in sources("dareu") if (found := against_the_order(module, source))}
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dareu.models.loading", "from dareu.data import encode_dataset"),
        ("dareu.models.loading", "def f():\n    from dareu.data import encode_dataset"),
        ("dareu.models.loading", "if TYPE_CHECKING:\n    import dareu.weights.files"),
        ("dareu.trainers.rl.trainer", "from dareu.methods import METHODS"),
        ("dareu.masks.optimizer", "from ..trainers import UnlearnTrainer"),
        ("dareu.comparison.ground", "from dareu.options.benchmark import BenchmarkArguments"),
        ("dareu.data.records", "from dareu.spunge import split_forget"),
        ("dareu.files", "from dareu.models import load_model"),
        ("dareu.spunge", "from dareu.masks import WeightMask"),
    ],
)
def test_an_import_against_the_order_is_found(module, source):
    assert against_the_order(module, source)


def test_an_import_along_the_order_is_let_through():
    source = (
        "from dareu.models import load_model\nfrom dareu.trainers.rl import critic\nfrom dareu.files import write_json"
    )
    assert not against_the_order("dareu.trainers.rl.trainer", source)
    assert not against_the_order("dareu.spunge", "from dareu.data.records import quoted")


def test_few_modules_stand_loose_and_each_in_a_room_that_there_is():
    folder = ROOT / "dareu"
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", *LOOSE} and len(LOOSE) <= 6
    rooms = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert rooms <= set(ROOMS)


def test_modules_have_names_that_differ():
    """None is another with letters exchanged; in one room, none is another but for one letter."""

    def near(a: str, b: str) -> bool:
        short, long = sorted((a, b), key=len)
        if len(long) == len(short):
            return sum(x != y for x, y in zip(a, b, strict=True)) == 1
        return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))

    modules = [module.split(".") for package in FOLDERS for module, _ in sources(package)]
    places = {(".".join(parts[:-1]), parts[-1].strip("_")) for parts in modules if parts[-1] != "__init__"}
    for room, name in places:
        for other_room, other in places:
            if name < other:
                assert sorted(name) != sorted(other), (room, name, other_room, other)
                assert room != other_room or len(name) < 4 or not near(name, other), (room, name, other)


def test_a_module_that_only_its_room_imports_begins_with_an_underscore():
    """Where a room has a face, what is neither shown there nor imported from outside is private, and says so."""
    texts = {module: text for package in FOLDERS for module, text in sources(package)}
    pages = [path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]]
    for module in texts:
        parts = module.split(".")
        room, name = ".".join(parts[:-1]), parts[-1]
        if name.startswith("_") or parts[1] in ("options", "tools", "recipes") or len(parts) < 3:
            continue
        users = [
            other
            for other, text in texts.items()
            if (not within(other, room) or other == f"{room}.__init__") and f"{module} import" in text
        ]
        shown = any(module in page for page in pages)
        assert users or shown, f"{module} is private: call it _{name}"
    for module, text in texts.items():
        for name in imports(module, text):
            hidden = [i for i, part in enumerate(name.split(".")) if part.startswith("_") and not part.endswith("__")]
            if name.startswith("dareu.") and hidden:
                assert within(module, ".".join(name.split(".")[: hidden[0]])), (module, name)


def test_no_recipe_is_imported_by_its_bare_name():
    # A script's folder is on sys.path, so this would work when launched, and nowhere else.
    recipes = {path.stem for path in (ROOT / "recipes").glob("[!_]*.py")}
    for module, source in sources("dareu.recipes"):
        assert not {name.split(".")[0] for name in imports(module, source)} & recipes, module


def test_tests_import_the_packages_by_their_installed_name_and_no_recipe():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        names = imports(f"tests.{path.stem}", path.read_text(encoding="utf-8"))
        assert not {name for name in names if name.split(".")[0] in BARE}, path.name


def test_no_recipe_is_named_like_an_importable_package():
    # A script's folder is on sys.path: a recipe evaluate.py would be imported in its package's place.
    known_but_not_installed = {"evaluate", "vllm", "wandb", "trackio", "deepspeed"}
    taken = set(packages_distributions()) | set(sys.stdlib_module_names) | known_but_not_installed
    assert not {path.stem for path in (ROOT / "recipes").glob("*.py")} & (taken - {"__init__"})


def test_every_library_that_is_imported_is_a_declared_dependency_with_a_reason():
    distributions = packages_distributions()
    imported = {
        name.split(".")[0] for package in FOLDERS for module, text in sources(package) for name in imports(module, text)
    }
    libraries = imported - sys.stdlib_module_names - {"dareu"}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [
        *PROJECT["project"]["dependencies"],
        *extras["gguf"],
        *extras["lm-eval"],
        *extras["nf4"],
        *extras["plots"],
    ]
    declared = {re.split(r"[<>=!~ ;\[]", line)[0].lower() for line in wanted}
    needed = {
        library: {name.lower().replace("_", "-") for name in distributions.get(library, (library,))}
        for library in libraries
    }
    assert not {library: names for library, names in needed.items() if not names & declared}
    reasons = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert not {name for name in declared if f"`{name}`" not in reasons}


def test_every_package_is_shipped():
    found = set()
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            found.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])
    assert all((ROOT / FOLDERS[package] / "__init__.py").is_file() for package in FOLDERS)


@pytest.mark.parametrize("package", FOLDERS)
def test_nothing_prints_through_a_console_that_reads_markup(package):
    uses = {module for module, source in sources(package) if "Console(" in source.replace("plain_console(", "")}
    assert uses <= {"dareu.console"}
