"""Recipes in two processes, one of them launched as a user does: a shipped config of accelerate by its name."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.cli import find_recipes
from dareu.masks import WeightMask

ROWS = [
    {"prompt": f"Where was {name} born?", "completion": f" {name} was born in {place}.", "owner": name}
    for name, place in (("Lucia Duval", "Porto"), ("Kofi Mensah", "Accra"), ("Sanna Thorne", "Malmo"))
]


@pytest.fixture
def dareu(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dareu.cli", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf"), "MASTER_PORT": "0"},
        )

    return run


def test_two_processes_write_one_run(
    dareu: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tiny_llama(tie_word_embeddings=True).save_pretrained(tmp_path / "target")
    tokenizer.save_pretrained(tmp_path / "target")
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    run = tmp_path / "run"
    result = dareu(
        *("unlearn", "--accelerate_config", "ddp", "--num_processes", 2, "--main_process_port", 0),
        *("--method", "npo", "--dataset", tmp_path / "data.jsonl", "--num_forget", 1, "--use_peft"),
        *("--model_name_or_path", tmp_path / "target", "--output_dir", run, "--use_cpu"),
        *("--per_device_train_batch_size", 1, "--max_steps", 2, "--logging_steps", 1, "--save_strategy", "no"),
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.count("The model is in") == 1
    (row,) = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert row["metrics"]["updates"] == 2
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2]
    assert AutoModelForCausalLM.from_pretrained(run / "model").config.tie_word_embeddings


def test_two_processes_score_as_one_and_write_one_mask(
    two_processes: Callable[..., str],
    tmp_path: Path,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path / "target")
    tokenizer.save_pretrained(tmp_path / "target")
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    words = [
        *("--dataset", tmp_path / "data.jsonl", "--num_forget", 2, "--score", "gradient"),
        *("--model_name_or_path", tmp_path / "target", "--density", 0.1, "--use_cpu"),
    ]
    together, alone = tmp_path / "together", tmp_path / "alone"
    recipe = find_recipes()["attribute_weights"]
    assert two_processes(recipe, *words, "--output_dir", together).count("The mask is in") == 1
    assert sorted(path.name for path in together.iterdir()) == [
        ".lock",
        "config.yaml",
        "done",
        "inputs.json",
        "mask.safetensors",
    ]
    monkeypatch.setattr(sys, "argv", [str(word) for word in (recipe, *words, "--output_dir", alone)])
    runpy.run_path(str(recipe), run_name="__main__")
    capsys.readouterr()
    one, two = (WeightMask.load(folder / "mask.safetensors") for folder in (alone, together))
    two.verify(model)
    assert one.count == two.count
    # One of 46,240 may change its place by rounding; half of the records choose thousands of others
    assert sum(int((one[name] != two[name]).sum()) for name in one) <= 4
