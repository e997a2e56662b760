import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dareu.cli

RECIPE = '''"""Greets the one who asks.

More about it.
"""

import argparse
import os
import sys

print(f"imported {__name__}\\n", end="")  # one write a line, since processes share the pipe
parser = argparse.ArgumentParser()
parser.add_argument("--name")
parser.add_argument("--status", type=int, default=0)
arguments = parser.parse_args()
print(f"hello {arguments.name} {os.environ.get('WORLD_SIZE', '1')}\\n", end="", flush=True)
sys.exit(arguments.status)
'''


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A folder of recipes in an installed package's place."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "greet.py").write_text(RECIPE, encoding="utf-8")
    (folder / "another.py").write_text("raise SystemExit('must not be imported')", encoding="utf-8")
    (folder / "__init__.py").touch()
    (folder / "_private.py").touch()
    return folder


def dareu_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own, with those recipes and no accelerate config."""
    program = f"""
import sys
from pathlib import Path
import dareu.cli

dareu.cli.find_recipes = lambda: {{path.stem: path for path in Path({str(folder)!r}).glob("[!_]*.py")}}
sys.exit(dareu.cli.main())
"""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HOME": str(folder.parent / "hf")},
    )


def test_a_recipe_gets_its_arguments_and_its_status_comes_back(recipes):
    result = dareu_command(recipes, "greet", "--name", "a b", "--status", "3")
    assert result.stdout.splitlines() == ["imported __main__", "hello a b 1"]
    assert result.returncode == 3
    assert result.stderr == ""  # no warning, and no traceback of the launcher's


def test_a_recipe_answers_for_its_own_help(recipes):
    result = dareu_command(recipes, "greet", "--help")
    assert result.returncode == 0
    assert "--name NAME" in result.stdout and "recipes:" not in result.stdout


def test_help_lists_the_recipes_without_importing_them(recipes, monkeypatch, capsys):
    monkeypatch.setattr(dareu.cli, "find_recipes", lambda: {"greet": recipes / "greet.py"})
    with pytest.raises(SystemExit) as caught:
        dareu.cli.main(["--help"])
    assert caught.value.code == 0
    assert re.search(r"^  greet +Greets the one who asks\.$", capsys.readouterr().out, re.MULTILINE)


def test_an_unknown_recipe_is_answered_with_the_list(recipes, monkeypatch, capsys):
    files = {name: recipes / f"{name}.py" for name in ("another", "greet")}
    monkeypatch.setattr(dareu.cli, "find_recipes", lambda: files)
    with pytest.raises(SystemExit) as caught:
        dareu.cli.main(["gret"])
    assert caught.value.code == 2
    assert "there is no recipe 'gret'; the recipes are another, greet" in capsys.readouterr().err


def test_the_installed_recipes_are_found_and_each_says_what_it_does():
    recipes = dareu.cli.find_recipes()
    assert list(recipes) == sorted(recipes)
    for path in recipes.values():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, f"{path.name} has no docstring, so 'dareu --help' has nothing to say of it"


def test_a_shipped_config_launches_processes_and_their_status_comes_back(recipes):
    launch = ["--accelerate_config", "ddp", "--num_processes", "2", "--main_process_port", "0"]
    result = dareu_command(recipes, "greet", *launch, "--name", "x", "--status", "3")
    assert result.stdout.splitlines().count("hello x 2") == 2
    assert result.returncode == 3


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (["--num_processes", "2"], "accelerate starts one where distributed_type is NO"),
        (["--accelerate_config", "single", "--num_processes", "2"], "accelerate starts one where distributed_type"),
        (["--accelerate_config", "fsdp3"], "give a file, or one of ddp, fsdp2, multi_machine, single, zero3"),
    ],
)
def test_a_launch_that_would_fall_back_silently_is_refused(recipes, monkeypatch, capsys, launch, message):
    monkeypatch.setattr(dareu.cli, "find_recipes", lambda: {"greet": recipes / "greet.py"})
    monkeypatch.setattr("accelerate.commands.config.default_config_file", str(recipes / "none.yaml"))
    with pytest.raises(SystemExit) as caught:
        dareu.cli.main(["greet", *launch])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_option_of_the_recipe_is_no_flag_of_the_launcher(recipes):
    result = dareu_command(recipes, "greet", "--accelerate_config", "single", "--name", "num_processes")
    assert result.stdout.splitlines()[-1] == "hello num_processes 1"


def test_it_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        dareu.cli.main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"dareu {dareu.__version__}\n"
