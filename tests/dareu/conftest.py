import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_dataset
from dareu.metrics import answer_nll
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
    def build(kind: type[UnlearnConfig] = UnlearnConfig, **changes: Any) -> UnlearnConfig:
        settings = SETTINGS | {"per_device_train_batch_size": 2}
        return kind(output_dir=str(tmp_path / "run"), **(settings | changes))

    return build


@pytest.fixture(scope="session")
def memorised(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Callable[..., LlamaForCausalLM]:
    """`memorised(**config)`: a tiny Llama that knows all rows by heart, each time a new one of the same weights."""

    @cache
    def taught(**config: Any) -> LlamaForCausalLM:
        model = tiny_llama(**config)
        records = [record for part in (forget_rows, retain_rows) for record in encode_dataset(part, tokenizer)]
        batch = CompletionCollator(tokenizer)(records)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(60):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return model

    return lambda **config: copy.deepcopy(taught(**config))


@pytest.fixture
def answers_nll(
    tokenizer: PreTrainedTokenizerFast, forget_rows: Dataset, retain_rows: Dataset
) -> Callable[..., tuple[float, float]]:
    """`answers_nll(model)`: the mean NLL of the forget answers and of the retained ones."""

    def measure(model: Any) -> tuple[float, float]:
        found = [
            answer_nll(model, tokenizer, list(rows["prompt"]), list(rows["completion"])).mean.mean()
            for rows in (forget_rows, retain_rows)
        ]
        return float(found[0]), float(found[1])

    return measure
