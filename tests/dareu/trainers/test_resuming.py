"""Trainings that are killed and started again end with the same bits; `interrupted.py` goes through them."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data.encoding import CompletionCollator, encode_dataset
from dareu.trainers import FinetuneConfig, FinetuneTrainer
from dareu.trainers.checkpoints import MANIFEST, what_is_wrong

SCRIPT = Path(__file__).with_name("interrupted.py")
CASES: dict[str, list[str]] = runpy.run_path(str(SCRIPT), run_name="cases")["CASES"]
TIMES = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second"}

#: What a killed training goes on from.
FOUND = {
    "dareu/update-1": None,
    "dareu/update-4": 3,
    "dareu/update-7": 5,
    "dareu/optimizer.pt-8": 5,
    "dareu/rename-8": 5,
    "dareu/rotation-10": 10,
    "dareu/end-12": 12,
    "dareu-original/update-9": 8,
    "dareu-gae/update-4": 3,
    "dareu-stopped/end-8": 8,
    "dareu-guided/update-7": 5,
    "npo/update-7": 6,
    "npo/manifest-10": 8,
    "npo-lora/update-7": 6,
    "finetune/update-7": 6,
}


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """The folder of the cases, after all of them were gone through."""
    folder = tmp_path_factory.mktemp("interrupted")
    tiny_llama().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    command = [sys.executable, str(SCRIPT), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=os.environ)
    assert result.returncode == 0, result.stderr[-4000:]
    return folder


def log_of(output: Path) -> list[dict[str, Any]]:
    """The lines of the log, without what is a time."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


@pytest.mark.parametrize("where", [f"{case}/{moment}" for case, moments in CASES.items() for moment in moments])
def test_a_killed_training_ends_as_an_uninterrupted_one(folder: Path, where: str) -> None:
    output, whole = folder / where, folder / where.partition("/")[0] / "whole"
    _, found = json.loads((output / "left.json").read_text(encoding="utf-8"))
    assert found == (FOUND[where] and f"checkpoint-{FOUND[where]}")
    assert (output / "final.safetensors").read_bytes() == (whole / "final.safetensors").read_bytes()
    assert (output / "updates").read_bytes() == (whole / "updates").read_bytes()
    assert log_of(output) == log_of(whole)


def test_checkpoints_are_whole_and_wait_for_the_end_of_a_rollout(folder: Path) -> None:
    logged = [line["step"] for line in log_of(folder / "dareu" / "whole")]
    assert logged == [3, 4, 5, 8, 10, 12, 12]  # every fourth update, before every checkpoint, and at the end
    for output in (path for case in CASES for path in (folder / case).iterdir()):
        steps = [8, 10, 12] if output.parent.name != "dareu-stopped" else [3, 5, 8]
        names = {f"checkpoint-{step}" for step in steps}
        assert {path.name for path in output.iterdir() if "checkpoint" in path.name} == names
        assert not any(what_is_wrong(output / name) for name in names)


def test_what_a_kill_leaves_is_hidden(folder: Path) -> None:
    for moment in ("optimizer.pt-8", "rename-8"):
        left, _ = json.loads((folder / "dareu" / moment / "left.json").read_text(encoding="utf-8"))
        assert left == [".tmp-checkpoint", "checkpoint-3", "checkpoint-5"]


def test_the_judge_had_stopped_it_for_good(folder: Path) -> None:
    assert (folder / "dareu-stopped" / "end-8" / "updates").read_text() == "8"


def test_the_best_checkpoint_is_known_by_its_last_place(
    tmp_path: Path,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    forget_rows: Dataset,
) -> None:
    records = encode_dataset(forget_rows, tokenizer)
    config = FinetuneConfig(
        output_dir=str(tmp_path),
        max_steps=2,
        learning_rate=1.0,  # makes it worse
        lr_scheduler_type="constant",
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        save_total_limit=1,
        load_best_model_at_end=True,
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
    )
    collator = CompletionCollator(tokenizer)
    trainer = FinetuneTrainer(tiny_llama(), config, train_dataset=records, eval_dataset=records, data_collator=collator)
    trainer.train()
    best = tmp_path / f"checkpoint-{trainer.state.best_global_step}"
    assert trainer.state.best_global_step == 1 and trainer.state.best_model_checkpoint == str(best)
    saved = json.loads((best / "trainer_state.json").read_text(encoding="utf-8"))
    assert saved["best_model_checkpoint"] == str(best)
    assert (best / MANIFEST).exists() and what_is_wrong(best) is None
