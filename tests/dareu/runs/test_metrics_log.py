import json

import pytest
from torch.utils.data import Dataset
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from dareu.runs.metrics_log import MetricsLog


class Rows(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {"input_ids": [1, 5, 6, 2], "labels": [1, 5, 6, 2]}


def test_a_trainer_leaves_a_line_a_log(tmp_path, tiny_llama):
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=3,
        logging_steps=1,
        per_device_train_batch_size=2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    path = tmp_path / "run" / "metrics.jsonl"
    Trainer(tiny_llama(), arguments, train_dataset=Rows(), callbacks=[MetricsLog(path)]).train()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert all(isinstance(line["loss"], float) for line in lines[:3]) and "train_runtime" in lines[3]


@pytest.mark.parametrize("main", [True, False])
def test_odd_numbers_become_null_and_only_the_main_process_writes(tmp_path, main):
    state = TrainerState(is_world_process_zero=main, global_step=7, epoch=0.5)
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)
    logs = {"loss": float("nan"), "kl": float("inf"), "reward": 0.25}
    MetricsLog(tmp_path / "log").on_log(arguments, state, TrainerControl(), logs=logs)
    assert (tmp_path / "log").exists() is main
    if main:
        line = json.loads((tmp_path / "log").read_text())
        assert line == {"step": 7, "epoch": 0.5, "loss": None, "kl": None, "reward": 0.25}


@pytest.mark.parametrize(("step", "main", "left"), [(0, True, 0), (4, True, 2), (6, True, 3), (4, False, 5)])
def test_lines_after_the_checkpoint_are_dropped(tmp_path, step, main, left):
    lines = [
        {"step": 2, "loss": 1.0},
        {"step": 4, "loss": 1.0},
        {"step": 6, "loss": 1.0},
        {"step": 6, "train_runtime": 9},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2, "lo'  # killed while it wrote
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    state = TrainerState(is_world_process_zero=main, global_step=step)
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)
    MetricsLog(path).on_train_begin(arguments, state, TrainerControl())
    assert path.read_text() == "".join(text.splitlines(keepends=True)[:left])
