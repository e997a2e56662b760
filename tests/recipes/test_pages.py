"""What README.md and docs/ tell the reader to type can be typed: every block of code is parsed, and some are run."""

import argparse
import ast
import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

from dareu.cli import LAUNCH_FLAGS, find_accelerate_configs, find_recipes, find_tools
from dareu.methods import METHODS
from dareu.options.unlearn import unlearn_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
#: Programs of others whose options are theirs.
FOREIGN = {"accelerate", "torchrun", "unzip", "vllm"}
#: Options of theirs that the text speaks of.
FOREIGN_OPTIONS = {"--enable-scale-out"}

#: Options that go to the launcher.
LAUNCH = {f"--{name}" for name in ("accelerate_config", *LAUNCH_FLAGS)}

ParserOf = Callable[..., tuple[Any, list[str]]]
Named = dict[str, set[str]]


def identity(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^(?:```)(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def inline(page: Path) -> list[str]:
    """What stands between single backticks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def filled(text: str, values: dict[str, str]) -> str:
    """A text with the values of its variables."""
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], text)


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell script; variables that it sets are filled in, loops run once."""
    values: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if assigned := re.fullmatch(r"(\w+)=(\$\(.*?\)|\"[^\"]*\"|\S*)(\s+#.*)?", line.strip()):
            values[assigned[1]] = filled(assigned[2].strip('"'), values)
            continue
        lexer = shlex.shlex(filled(line, values), posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                if words[:1] == ["for"]:
                    values[words[1]] = words[3]
                elif words and words != ["done"]:
                    yield words
                words = []
            elif word != "do":
                words.append(word)


def stand_alone(words: list[str]) -> list[str]:
    """A command without the variables that it sets for itself, and without the folder of its program."""
    words = list(dropwhile(re.compile(r"\w+=").match, words))
    return [word.removeprefix(".venv/bin/") for word in words[:1]] + words[1:]


def named_options(words: list[str]) -> set[str]:
    """The options in a command, without their values."""
    return {word.partition("=")[0] for word in words if re.match(r"--\w", word)} - {"--help"}


def all_options(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of those under it."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for below in action.choices.values() for option in all_options(below)}
    return found


@pytest.fixture(scope="module")
def known(parser_of: ParserOf) -> Named:
    """The options of each recipe and tool, with those of every method where one is chosen."""
    found = {name: all_options(parser_of(name)[0]) for name in find_tools()}
    of_methods = set().union(*(all_options(unlearn_parser(method)) for method in METHODS.values()))
    for name in find_recipes():
        options = all_options(parser_of(name)[0])
        found[name] = options | {"--config"} | LAUNCH | (of_methods if "--method" in options else set())
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that has what a clone has, and nothing else."""
    for name in ("recipes", "benchmarks", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_plug_ins(page: Path, text: str, folder: Path) -> None:
    """Writes each `file.py:Name` that a text names, from the block that defines the name, on its page or another."""
    for file, name in re.findall(r"([\w/]+\.py):(\w+)", text):
        definition = re.compile(rf"^(?:class |def )?{name}\b", re.MULTILINE)
        code = [code for place in (page, *PAGES) for language, code in blocks(place) if language == "python"]
        sources = list(filter(definition.search, code))
        assert sources, f"no block defines the {name} of {file}"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(sources[0], encoding="utf-8")


def check_dareu(words: list[str], parser_of: ParserOf) -> None:
    """Parses a command of ours as its program would; of one that leaves something out, the names of its options."""
    if words == ["--help"]:
        return
    name, *words = words
    recipes = find_recipes()
    assert name in recipes or name in find_tools(), f"there is no recipe or tool {name}"
    whole = not any("…" in word for word in words) and "--help" not in words
    for place in [i for i, word in enumerate(words) if word == "--config"][::-1]:
        assert not words[place + 1].startswith("recipes/") or Path(words[place + 1]).is_file(), words[place + 1]
        if not Path(words[place + 1]).is_file():  # the reader's own
            del words[place : place + 2]
            whole = False
    launcher = argparse.ArgumentParser(allow_abbrev=False)
    for option in LAUNCH if name in recipes else ():
        launcher.add_argument(option)
    launched, words = launcher.parse_known_args([word for word in words if word != "--help"])
    config = getattr(launched, "accelerate_config", None)
    assert config is None or config in find_accelerate_configs(), config
    parser, words = parser_of(name, *words)
    wrong = named_options(words) - all_options(parser) - {"--config"}
    assert not wrong, f"{name} has no option {', '.join(wrong)}"
    if whole:
        parser.parse_args_and_config(words) if name in recipes else parser.parse_args(words)


def check_pip(words: list[str]) -> None:
    """Whether the files and extras that `pip install` names are there."""
    for flag, value in pairwise(words):
        assert flag not in ("-c", "--constraint") or Path(value).is_file(), f"there is no {value}"
    found = [re.fullmatch(r"(?:dareu|\.)\[(.*)\]", word) for word in words]
    extras = {extra for match in found if match for extra in match[1].split(",")}
    assert extras <= set(EXTRAS), f"there are no extras {extras - set(EXTRAS)}"


def check_command(words: list[str], parser_of: ParserOf) -> None:
    """Whether a command could be typed.

    Raises:
        AssertionError: It names what is not there.
        SystemExit: The program's own parser refuses it.
    """
    program, *rest = stand_alone(words)
    if program == "dareu":
        check_dareu(rest, parser_of)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets), rest
    elif program == "pip":
        check_pip(rest)
    elif program in ("python", "python3"):
        if rest[0] == "-m":
            assert find_spec(rest[1]) is not None, rest[1]
        else:
            text = (ROOT / rest[0]).read_text(encoding="utf-8")
            assert all(option[2:] in text for option in named_options(rest)), rest
    else:
        assert program in FOREIGN, f"{program} is not known: check it, or name it in FOREIGN"


def test_every_block_names_a_language_that_is_read() -> None:
    found = {language for page in PAGES for language, _ in blocks(page)}
    assert found <= {"bash", "python", "yaml", "text"}, "a block without a language is checked by nobody"
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("\n```") == 2 * len(blocks(page)), f"{page.name}: a block is not closed, or is indented"
        outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"\n\n {4}\w", outside), f"{page.name} has an indented block: give it a language"


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_commands_are_ones_that_there_are(page: Path, parser_of: ParserOf, project: Path) -> None:
    for language, text in blocks(page):
        if language == "bash":
            write_plug_ins(page, text, project)
            for words in commands(text):
                check_command(words, parser_of)


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_options_in_the_text_are_ones_that_there_are(page: Path, known: Named, parser_of: ParserOf) -> None:
    others = FOREIGN_OPTIONS | set(launch_command_parser()._option_string_actions)
    for code in inline(page):
        words = stand_alone(code.split())
        if words[:1] == ["dareu"] and len(words) > 1 and words[1][0].islower():
            assert words[1] in known, code
            assert named_options(words) <= known[words[1]], code
        elif words[:1] in (["make"], ["pip"], ["python"]):
            check_command(shlex.split(" ".join(words)), parser_of)
        elif words and words[0] not in FOREIGN:
            assert named_options(words) <= others.union(*known.values()), code


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_python_names_what_there_is(page: Path) -> None:
    """It compiles, what it imports of dareu is there, and takes the arguments that it is given by name."""
    for language, text in blocks(page):
        if language != "python":
            continue
        tree = ast.parse(text)
        scope: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), identity(page), "exec"), scope)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in scope:
                parameters = inspect.signature(scope[node.func.id]).parameters
                open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
                named = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                assert open_ended or named <= set(parameters), ast.unparse(node)


def test_the_python_of_the_tutorial_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks(ROOT / "docs" / "tutorial.md")
    places = [i for i, (language, _) in enumerate(found) if language == "python"]
    assert places
    for place in places:
        exec(compile(found[place][1], "tutorial.md", "exec"), {})
        assert capsys.readouterr().out == found[place + 1][1]


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_yaml_is_what_a_recipe_takes(page: Path, known: Named, parse: Callable[..., list[Any]], project: Path) -> None:
    for language, text in blocks(page):
        if language != "yaml":
            continue
        options = yaml.safe_load(text)
        assert options, text
        takers = [name for name in find_recipes() if {f"--{key}" for key in options} <= known[name]]
        assert takers, f"no recipe takes all of {', '.join(options)}"
        write_plug_ins(page, text, project)
        Path("config.yaml").write_text(text, encoding="utf-8")
        if "output_dir" in options:  # it is whole
            assert any(parse(name, "--config", "config.yaml") for name in takers)


@pytest.mark.parametrize(
    "command",
    [
        "dareu unlern --method npo",
        "dareu unlearn --method npo --model_name_or_path x --output_dir y --no_such_option 1",
        "dareu unlearn … --no_such_option 1",
        "dareu unlearn --method npo --model_name_or_path x --output_dir y --beta_1 .5",
        "dareu measure --config recipes/configs/none.yaml",
        "dareu mask show mask.safetensors --jpeg mask.jpeg",
        "dareu mask draw mask.safetensors",
        "dareu ask --models",
        "make coffee",
        "pip install '.[espresso]'",
        "pip install -c none.txt .",
        "python benchmarks/update.py --no_such_option 1",
        "pandoc README.md",
    ],
)
def test_what_cannot_be_typed_is_found(command: str, parser_of: ParserOf, project: Path) -> None:
    (words,) = commands(command)
    with pytest.raises((AssertionError, SystemExit, ValueError)):
        check_command(words, parser_of)


def test_commands_are_read_as_a_shell_reads_them() -> None:
    text = (
        'C="--config x.yaml"  # what\ndareu a $C \\\n    --y 1 && dareu b  # c\nfor m in d e; do\n  dareu f $m; done\n'
    )
    assert list(commands(text)) == [
        ["dareu", "a", "--config", "x.yaml", "--y", "1"],
        ["dareu", "b"],
        ["dareu", "f", "d"],
    ]
    assert stand_alone(["A=1", ".venv/bin/dareu", "ask"]) == ["dareu", "ask"]
