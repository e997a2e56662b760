import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from dareu.comparison.ground import Ground
from dareu.data.parts import DataArguments
from dareu.options.benchmark import BenchmarkArguments
from dareu.runs.plans import Plan

#: What makes the models, judges and masks, and what runs and measures the methods.
CONFIGS: dict[str, dict[str, Any]] = {
    "base": {"model_name_or_path": "from-scratch"},
    "target": {"model_name_or_path": "some-base", "max_steps": 3},
    "classifier": {"classifier_kwargs": {"model": "some-base", "lora": False}},
    "validation_judge": {"classifier": "tfidf"},
    "test_judge": {"classifier_kwargs": {"model": "some-encoder"}},
    "mask": {"density": [0.5], "gamma": "auto"},
    "measure": {"base_model": "some-base", "max_new_tokens": 4},
    "npo": {"method": "npo", "base_model": "some-base", "validation_judge": "one", "learning_rate": 1e-4},
}


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, options in CONFIGS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> DataArguments:
    """Three owners with two rows each, the last to be forgotten, and two test rows."""

    def write(name: str, owners: list[tuple[int, str]]) -> str:
        rows = [{"prompt": f"{owner}?", "completion": "Yes.", "owner": owner, "group": str(i)} for i, owner in owners]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return str(tmp_path / name)

    rows = [(i, owner) for owner in ("Ann", "Ben", "Cem") for i in range(2)]
    tests = [(i, "none") for i in range(2)]
    return DataArguments(dataset=write("rows.jsonl", rows), test_dataset=write("test.jsonl", tests), num_forget=1)


def _parsed(**options: Any) -> Any:
    return dataclasses.make_dataclass("Options", [(name, object) for name in options])(**options)


@pytest.fixture
def parsed() -> Callable[..., Any]:
    """`parsed(**options)`: a dataclass with these."""
    return _parsed


class Checked(list[tuple[str, dict[str, Any]]]):
    """Stands for the check of options: keeps what was checked, and gives for each recipe what it is told to."""

    def __init__(self) -> None:
        self.parsed: dict[str, list[Any]] = {"finetune": [_parsed(), _parsed(num_hidden_layers=4)]}

    def __call__(self, recipe: str, options: Mapping[str, Any]) -> list[Any]:
        self.append((recipe, dict(options)))
        if options.get("max_steps") == "many":
            raise ValueError("max_steps is 'many': give a number.")
        return self.parsed.get(recipe, [])


@pytest.fixture
def checked() -> Checked:
    return Checked()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(tmp_path / "stages")


@pytest.fixture
def ground(plan: Plan, data: DataArguments, configs: Path, checked: Checked) -> Callable[..., Ground]:
    """`ground(seed, **asked)`, over one plan."""

    def build(seed: int = 0, data: DataArguments = data, **asked: Any) -> Ground:
        options = BenchmarkArguments(output_dir="-", methods=["npo"], **asked)
        return Ground(plan, data, options, configs, seed, checked)

    return build


@pytest.fixture
def said(plan: Plan) -> Callable[..., dict[str, Any]]:
    """`said(folder, command)`: the options of a planned stage's command."""

    def options(folder: Path | str, command: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = plan.stages[Path(folder).name].content[0][command][1]
        return found

    return options
