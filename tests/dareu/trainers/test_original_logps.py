"""π_N's log-probabilities are computed once for a model and its records, whichever run asks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.methods.dpo import dpo
from dareu.trainers import UnlearnConfig, UnlearnTrainer

Logps = Callable[..., list[list[float]]]


@pytest.fixture
def logps(
    tokenizer: PreTrainedTokenizerFast,
    tiny_llama: Callable[..., LlamaForCausalLM],
    unlearn_config: Callable[..., UnlearnConfig],
    forget_rows: Dataset,
    tmp_path: Path,
) -> Logps:
    """Of the answers and of the refusals, as a new trainer gives them."""

    def ask(*, model_seed: int = 0, rows: Dataset = forget_rows, dtype: Any = torch.float32, **options: Any) -> Any:
        options = {"refusals": "common", "original_cache_dir": str(tmp_path / "shared")} | options
        trainer = UnlearnTrainer(
            tiny_llama(seed=model_seed).to(dtype),
            dpo,
            unlearn_config(retain_loss="none", **options),
            rows,
            processing_class=tokenizer,
        )
        return [trainer._original_logps(name).tolist() for name in ("ref_logps", "ref_refusal_logps")]

    return ask


def files(folder: Path) -> dict[str, float]:
    """Each file with when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_another_run_finds_them(logps: Logps, tmp_path: Path) -> None:
    first = logps()
    made = files(tmp_path / "shared")
    assert len(made) == 2  # of the answers, of the refusals
    # Nothing of this decides what π_N says
    assert logps(learning_rate=0.5, per_device_train_batch_size=1, loss_kwargs={"beta": 0.7}) == first
    assert files(tmp_path / "shared") == made


def test_the_content_of_the_file_is_what_is_used(logps: Logps, tmp_path: Path) -> None:
    first = logps()
    for path in (tmp_path / "shared").iterdir():
        save_file({"logps": load_file(path)["logps"] - 1}, path)
    assert logps() == [[value - 1 for value in values] for values in first]


def test_whatever_decides_them_makes_them_anew(logps: Logps, forget_rows: Dataset, tmp_path: Path) -> None:
    def new_files(**changes: Any) -> int:
        before = files(tmp_path / "shared")
        logps(**changes)
        return len(files(tmp_path / "shared").keys() - before.keys())

    logps()
    assert new_files(model_seed=1) == 2
    assert new_files(rows=forget_rows.select([1, 0])) == 2
    assert new_files(dtype=torch.bfloat16) == 2
    assert new_files(bf16=True) == 2
    assert new_files(seed=5) == 1  # other refusals are drawn


@pytest.mark.parametrize("damage", ["cut short", "foreign", "of other records", "not finite"])
def test_a_damaged_or_foreign_file_is_made_anew(
    damage: str, logps: Logps, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = logps()
    for path in (tmp_path / "shared").iterdir():
        if damage == "cut short":
            path.write_bytes(path.read_bytes()[:-3])
        elif damage == "foreign":
            save_file({"weights": torch.zeros(2)}, path)
        elif damage == "of other records":
            save_file({"logps": torch.zeros(3)}, path)
        else:
            save_file({"logps": torch.full((2,), torch.nan)}, path)
    assert logps() == first
    assert caplog.text.count("is no whole file of log-probabilities") == 2
    caplog.clear()
    assert logps() == first and not caplog.text


def test_they_stay_in_the_output_folder_by_default(logps: Logps, tmp_path: Path) -> None:
    logps(original_cache_dir=None)
    assert len(files(tmp_path / "run" / "original")) == 2
