"""Recipes run as scripts, but in the process of the tests: starting Python with its libraries costs ten seconds."""

import argparse
import contextlib
import io
import random
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.classifiers import TfidfClassifier
from dareu.cli import find_recipes, find_tools
from dareu.data.fictional import FictionalWorld, fictional_world
from dareu.options.parsing import OptionParser

Run = Callable[..., str]

PLUGINS = Path(__file__).resolve().parent.parent / "plugin_package"


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="session")
def recipe() -> Run:
    """`recipe("measure", "--option", value, …)`: runs a recipe as `__main__` and returns what it printed."""
    scripts = find_recipes()

    def run(name: str, *words: Any) -> str:
        printed = io.StringIO()
        states = random.getstate(), np.random.get_state()  # finetune seeds the global generators
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
            patch.setattr(sys, "argv", [str(scripts[name]), *map(str, words)])
            with contextlib.redirect_stdout(printed):
                runpy.run_path(str(scripts[name]), run_name="__main__")
        random.setstate(states[0])
        np.random.set_state(states[1])
        return printed.getvalue()

    return run


class Asked(Exception):
    """A program's parser, and the words that it would parse."""


@pytest.fixture(scope="session")
def parser_of(recipe: Run) -> Callable[..., tuple[Any, list[str]]]:
    """`parser_of("measure", "--option", …)`: the parser of a recipe or tool, and the words that it would parse."""
    tools, parse = find_tools(), OptionParser.parse_args_and_config

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("return_remaining_strings"):  # a first look, to learn which options there are
            return parse(self, *args, **kwargs)
        raise Asked(self, sys.argv[1:])

    def run(name: str, *words: str) -> tuple[Any, list[str]]:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Asked) as asked:
            patch.setattr(OptionParser, "parse_args_and_config", stop)
            if name not in tools:
                recipe(name, *words)
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            patch.setattr(sys, "argv", [name, *words])
            runpy.run_path(str(tools[name]), run_name="__main__")
        parser, given = asked.value.args
        return parser, given

    return run


@pytest.fixture(scope="session")
def parse(parser_of: Callable[..., tuple[Any, list[str]]]) -> Callable[..., list[Any]]:
    """Runs a recipe or tool up to where it has parsed all its options, and returns what it made of them."""

    def run(name: str, *words: str) -> list[Any]:
        parser, given = parser_of(name, *words)
        if isinstance(parser, OptionParser):
            return list(parser.parse_args_and_config(given))
        return [parser.parse_args(given)]

    return run


@pytest.fixture(scope="session")
def world() -> FictionalWorld:
    return fictional_world(4, seed=1, num_holdout=1, num_background=5, num_test=1)


@pytest.fixture(scope="session")
def data(world: FictionalWorld, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name files of a small world: one owner of four to forget, background people as owner "none"."""
    folder = tmp_path_factory.mktemp("data")
    datasets.concatenate_datasets([world.background, world.owners]).to_json(folder / "world.jsonl")
    world.test.to_json(folder / "test.jsonl")
    words = ["--dataset", folder / "world.jsonl", "--test_dataset", folder / "test.jsonl"]
    return [str(word) for word in [*words, "--num_background_owners", 1, "--num_forget", 1]]


@pytest.fixture(scope="session")
def model(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """The folder of a tiny random model."""
    folder = tmp_path_factory.mktemp("models") / "model"
    tiny_llama(seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def judge(world: FictionalWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier that knows the world's owners."""
    folder = tmp_path_factory.mktemp("judges") / "judge"
    TfidfClassifier("naive_bayes").fit(list(world.owners["completion"]), list(world.owners["owner"])).save(folder)
    return folder


def files_under(folder: Path) -> dict[str, bytes]:
    """Relative names and contents of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="session")
def refused(recipe: Run) -> Callable[..., str]:
    """Runs a recipe that must stop with one sentence and leave no file changed; returns the sentence."""

    def run(name: str, *words: Any, output_dir: Path) -> str:
        before = files_under(output_dir) if output_dir.exists() else {}
        with pytest.raises(SystemExit) as stopped:
            recipe(name, *words)
        message = stopped.value.code
        assert isinstance(message, str), "sys.exit with a text prints it to stderr and exits with 1"
        assert message.startswith(f"{name}: ") and message.endswith(".") and "\n" not in message, message
        assert (files_under(output_dir) if output_dir.exists() else {}) == before
        return message

    return run


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example plug-in, beside nothing else."""
    folder = tmp_path_factory.mktemp("plugins")
    source = shutil.copytree(PLUGINS, folder / "source")  # building writes into it
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-index", "--target", str(folder / "site"), str(source)], check=True)
    return folder / "site"


@pytest.fixture
def plugins(plugin_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the example plug-in's package, which can be imported while the test runs."""
    name = "dareu_example_plugin"
    monkeypatch.syspath_prepend(str(plugin_site))
    yield name
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[module]
