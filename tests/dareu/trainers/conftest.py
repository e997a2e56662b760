from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dareu.trainers import DareUConfig, UnlearnConfig

PEOPLE = {"Lucia Duval": "Porto", "Kofi Mensah": "Accra", "Sanna Thorne": "Malmo"}


def rows(names: list[str]) -> Dataset:
    return Dataset.from_list(
        [
            {"prompt": f"{question} {name}?", "completion": f" {name} {verb} {PEOPLE[name]}.", "owner": name}
            for name in names
            for question, verb in (("Where was", "was born in"), ("Where lives", "lives near"))
        ]
    )


@pytest.fixture(scope="session")
def forget_rows() -> Dataset:
    return rows(["Lucia Duval"])


@pytest.fixture(scope="session")
def retain_rows() -> Dataset:
    return rows(["Kofi Mensah", "Sanna Thorne"])


SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
}


@pytest.fixture
def dareu_config(tmp_path: Path) -> Callable[..., DareUConfig]:
    def build(**changes: Any) -> DareUConfig:
        settings = SETTINGS | {
            "num_generations": 4,
            "per_device_train_batch_size": 4,
            "max_completion_length": 8,
            "mask_truncated_completions": False,  # a random model seldom ends
            "num_slices": 3,
        }
        return DareUConfig(output_dir=str(tmp_path / "run"), **(settings | changes))

    return build


@pytest.fixture
def unlearn_config(tmp_path: Path) -> Callable[..., UnlearnConfig]:
    def build(**changes: Any) -> UnlearnConfig:
        settings = SETTINGS | {"per_device_train_batch_size": 2}
        return UnlearnConfig(output_dir=str(tmp_path / "run"), **(settings | changes))

    return build
