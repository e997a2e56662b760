"""Trainings that kill themselves at a chosen moment and are started again; run as a script by the tests beside it.

    python interrupted.py FOLDER

FOLDER holds a model and its tokenizer. Every training has a process of its own, forked from this one, which spares
it the imports. It leaves its weights and its log in FOLDER/CASE/MOMENT.
"""

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from dareu.data.encoding import CompletionCollator, encode_dataset
from dareu.masks import WeightMask, random_mask
from dareu.methods.npo import npo
from dareu.runs.metrics_log import MetricsLog
from dareu.trainers import (
    DareUConfig,
    DareUTrainer,
    FinetuneConfig,
    FinetuneTrainer,
    UnlearnConfig,
    UnlearnTrainer,
)
from dareu.trainers.checkpoints import last_checkpoint
from dareu.weights import fingerprint

NAMES = ["Lucia Duval", "Kofi Mensah", "Sanna Thorne"]
FORGET = [
    {"prompt": f"{words} {name}?", "completion": f" {name} {words[-3:]} {place}."}
    for name, place in zip(NAMES, ["Porto", "Accra", "Malmo"], strict=True)
    for words in ("Where was", "Who is", "What wrote")
]
RETAIN = [{"prompt": f"Who wrote book {i}?", "completion": f" The author {i * 37}."} for i in range(5)]

#: An epoch has 9 micro-steps, thus 5 updates with a shorter one at its end, and a rollout lasts 3 micro-steps: it is
#: used up after updates 3 and 5 of each epoch.
SETTINGS: dict[str, Any] = {
    "max_steps": 12,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
    "logging_steps": 4,
    "save_steps": 2,
    "save_total_limit": 3,
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
    "dataloader_pin_memory": False,
}
DAREU = {"num_generations": 4, "per_device_train_batch_size": 4, "steps_per_generation": 3, "num_slices": 3}
DAREU |= {"max_completion_length": 6, "mask_truncated_completions": False}
VALIDATION = {"validation_steps": 4, "stop_forget_attribution": 0.0}

#: Case to the moments at which it is killed.
CASES: dict[str, list[str]] = {
    "dareu": ["update-1", "update-4", "update-7", "optimizer.pt-8", "rename-8", "rotation-10", "end-12"],
    "dareu-original": ["update-9"],
    "dareu-gae": ["update-4"],
    "dareu-stopped": ["end-8"],
    "dareu-guided": ["update-7"],
    "npo": ["update-7", "manifest-10"],
    "npo-lora": ["update-7"],
    "finetune": ["update-7"],
}


class LetterReward:
    """Dense: the more letters e a prefix has, the worse."""

    __name__ = "letters"

    def __call__(self, completions: Any, **_: Any) -> list[float]:
        return [-float(text.count("e")) for text in completions]

    def at(self, completions: Any, ends: Any, **_: Any) -> list[list[float]]:
        return [[-float(text[:end].count("e")) for end in row] for text, row in zip(completions, ends, strict=True)]


def build(case: str, folder: Path, output: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder / "model", attention_dropout=0.1)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    method, _, variant = case.partition("-")
    lora = variant == "lora"
    common: dict[str, Any] = {
        "retain_dataset": Dataset.from_list(RETAIN),
        "mask": None if lora else WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model)),
        "processing_class": tokenizer,
        "peft_config": LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.1) if lora else None,
        # A judge that finds less and less, and nothing from update 8 or, where training shall go on, update 100 on
        "validate": lambda _: {"forget_attribution": max(0.0, (8 if variant == "stopped" else 100) - step())},
    }

    def step() -> int:
        return int(trainer.state.global_step)

    if method == "dareu":
        options = SETTINGS | DAREU | VALIDATION
        options["rollout_policy"] = "original" if variant == "original" else "current"
        options["advantage_estimator"] = "gae" if variant == "gae" else "group"
        if variant == "guided":
            options |= {"max_completion_length": 40, "early_stopping_patience": 9}
            common["base_model"] = AutoModelForCausalLM.from_pretrained(folder / "model")
            # The best state is that of update 4, which a later checkpoint has to bring along
            common["validate"] = lambda _: {"forget_attribution": 1.0, "gap": abs(step() - 4) / 10}
        config = DareUConfig(output_dir=str(output), retain_batch_size=2, **options)
        trainer = DareUTrainer(model, LetterReward(), config, Dataset.from_list(FORGET), **common)
    elif method == "npo":
        unlearning = UnlearnConfig(output_dir=str(output), per_device_train_batch_size=1, **SETTINGS, **VALIDATION)
        trainer = UnlearnTrainer(model, npo, unlearning, Dataset.from_list(FORGET), **common)
    else:
        records = encode_dataset(Dataset.from_list(FORGET), tokenizer)
        finetuning = FinetuneConfig(output_dir=str(output), per_device_train_batch_size=1, **SETTINGS)
        finetuning.remove_unused_columns = False
        trainer = FinetuneTrainer(model, finetuning, train_dataset=records, data_collator=CompletionCollator(tokenizer))
    trainer.add_callback(MetricsLog(output / "metrics.jsonl"))
    return trainer


class KillAt(TrainerCallback):
    """Kills the process with SIGKILL at `WHERE-UPDATE`."""

    def __init__(self, moment: str) -> None:
        self.where, _, update = moment.rpartition("-")
        self.update = int(update)
        self.now = 0
        self.before("write_manifest", "dareu.trainers._resuming", lambda _: self.where == "manifest")
        self.before("save", "torch", lambda _, path, *__: Path(path).name == self.where)
        self.before("rename", "os", lambda _, to, *__: self.where == "rename" and to.name.startswith("checkpoint-"))
        self.before("rmtree", "shutil", lambda path, *_: self.where == "rotation" and "checkpoint-" in str(path))

    def before(self, name: str, module: str, applies: Callable[..., bool]) -> None:
        """Kills before the first call of a function that applies."""
        original = getattr(sys.modules[module], name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.now == self.update and applies(*args):
                if self.where == "optimizer.pt":
                    Path(args[1]).write_bytes(b"half of it")
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(sys.modules[module], name, call)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.now = state.global_step
        if self.where == "update" and self.now == self.update:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.where == "end":
            assert state.global_step == self.update
            os.kill(os.getpid(), signal.SIGKILL)


def train(case: str, folder: Path, output: Path, moment: str | None) -> None:
    trainer = build(case, folder, output)
    if moment is not None:
        trainer.add_callback(KillAt(moment))
    checkpoint = last_checkpoint(output)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    weights = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    save_file(weights, output / "final.safetensors")
    (output / "updates").write_text(str(trainer.state.global_step))


def in_a_process(work: Callable[[], None]) -> int:
    """The exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    torch.set_num_threads(1)
    gc.freeze()  # what was imported, which each training asks the collector to look at
    folder = Path(sys.argv[1])
    for case, moments in CASES.items():
        assert in_a_process(partial(train, case, folder, folder / case / "whole", None)) == 0
        for moment in moments:
            output = folder / case / moment
            assert in_a_process(partial(train, case, folder, output, moment)) == -signal.SIGKILL, moment
            left = sorted(path.name for path in output.glob("*checkpoint*"))
            found = last_checkpoint(output)
            (output / "left.json").write_text(json.dumps([left, found and found.name]))
            assert in_a_process(partial(train, case, folder, output, None)) == 0


if __name__ == "__main__":
    main()
