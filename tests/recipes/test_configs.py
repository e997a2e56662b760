"""Every YAML says how it is run, and its recipe takes what it holds."""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dareu.cli import find_recipes

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "recipes" / "configs").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands name their files from the folder of the project."""
    monkeypatch.chdir(ROOT)


def commands(text: str) -> list[list[str]]:
    """The `dareu …` commands in the comment that opens a YAML file, lines that end in a backslash joined."""
    comment = "\n".join(re.match(r"(?:#.*\n)*", text)[0].splitlines())  # type: ignore[index]  # it matches nothing too
    comment = re.sub(r"\\\n#\s*", " ", comment)
    return [shlex.split(line)[1:] for line in re.findall(r"^#\s+(dareu .*)$", comment, re.MULTILINE)]


def identity(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes" / "configs"))


def test_there_are_configs() -> None:
    assert {path.parent.name for path in CONFIGS} >= {"fictional", "tofu"}


@pytest.mark.parametrize("path", CONFIGS, ids=identity)
def test_a_config_opens_with_the_commands_that_run_it(path: Path, parse: Callable[..., list[Any]]) -> None:
    text = path.read_text(encoding="utf-8")
    found = commands(text)
    assert found, "the opening comment holds no `dareu RECIPE …`"
    for name, *words in found:
        assert name in find_recipes()
        assert words[:2] == ["--config", path.relative_to(ROOT).as_posix()]
        parsed = parse(name, *words)
        values = {key: value for part in parsed for key, value in vars(part).items()}
        # What the YAML says is what the recipe gets, unless the command says otherwise.
        given = {word.removeprefix("--") for word in words if word.startswith("--")}
        for key, value in yaml.safe_load(text).items():
            assert key in values
            if key not in given and not isinstance(value, dict):
                assert values[key] == value or getattr(values[key], "value", None) == value, key


@pytest.mark.parametrize(
    "name", ["finetune", "train_classifier", "attribute_weights", "unlearn", "spunge", "measure", "audit"]
)
def test_an_unknown_key_is_refused(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    """Without one unknown key each of these parses, as the test above shows."""
    path = next(path for path in CONFIGS if commands(path.read_text(encoding="utf-8"))[0][0] == name)
    copy = tmp_path / "config.yaml"
    text = path.read_text(encoding="utf-8") + "no_such_option: 1\n"
    copy.write_text(re.sub(r"runs/", f"{tmp_path}/", text), encoding="utf-8")
    assert "no_such_option" in refused(name, "--config", copy, output_dir=tmp_path)


def test_a_config_file_and_the_command_line_override_a_methods_usual_settings(
    parse: Callable[..., list[Any]], tmp_path: Path
) -> None:
    def parsed(method: str, *words: str) -> tuple[str, float, float, float]:
        words = ("--model_name_or_path", "x", "--output_dir", str(tmp_path), *words)
        training = parse("unlearn", "--method", method, *words)[5]
        return training.retain_loss, training.retain_coef, training.learning_rate, getattr(training, "forget_coef", 1)

    assert parsed("ga")[0] == "none"
    assert parsed("graddiff")[:2] == parsed("idk")[:2] == parsed("finetune_retain")[:2] == ("nll", 1)
    assert parsed("kl_min")[:2] == ("kl", 1)
    assert parsed("simnpo")[3] == 0.125 and parsed("satimp")[3] == 0.1
    assert parsed("undial")[2] == 1e-4
    assert parsed("npo") == ("kl", 2, 5e-5, 1) and parsed("dareu")[:2] == ("kl", 2)  # those of their configs
    (tmp_path / "given.yaml").write_text("retain_coef: 3.0\nlearning_rate: 0.5\n", encoding="utf-8")
    given = "--config", str(tmp_path / "given.yaml")
    assert parsed("undial", *given)[:3] == ("kl", 3, 0.5)
    assert parsed("simnpo", *given, "--learning_rate", "0.25", "--retain_loss", "kl") == ("kl", 3, 0.25, 0.125)


def test_every_recipe_has_a_config_or_needs_none() -> None:
    named = {words[0] for path in CONFIGS for words in commands(path.read_text(encoding="utf-8"))}
    assert named | {"quickstart", "ask"} == set(find_recipes())


def test_commands_are_found_in_the_opening_comment_only() -> None:
    text = "# One.\n#   dareu a --config x.yaml\n# Two:\n#   dareu b --x \\\n#     'y z'\nkey: 1\n# dareu c\n"
    assert commands(text) == [["a", "--config", "x.yaml"], ["b", "--x", "y z"]]
    assert sys.argv[0] != "dareu"
