"""Masked trainings under DeepSpeed's ZeRO on a CPU; run by torchrun from the tests beside it.

    DS_ACCELERATOR=cpu python -m torch.distributed.run --nproc_per_node 2 zero.py FOLDER

FOLDER holds a model and its tokenizer. The main process writes what came out beside them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from cases import SETTINGS, dareu, trained, unlearn
from safetensors.torch import save_file

from dareu.runs.program import leave_process_group
from dareu.trainers.processes import load_whole_weights


def config(stage: int) -> dict[str, Any]:
    return {
        "zero_optimization": {
            "stage": stage,
            "stage3_param_persistence_threshold": 100,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": "auto"},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }


def start(build: Any, folder: Path, stage: int, **options: Any) -> Any:
    AcceleratorState._reset_state()
    load_whole_weights()  # as a recipe does
    return build(folder, masked=True, deepspeed=config(stage), max_grad_norm=0.1, **options)


def resumed(folder: Path, stage: int) -> list[bool]:
    """Whether a training that goes on from a checkpoint ends with the same bits, on each process."""
    settings = dict(SETTINGS)
    SETTINGS.update(max_steps=4, save_strategy="steps", save_steps=2)
    whole = start(unlearn, folder, stage)
    whole.train()
    expected = pieces(whole)
    again = start(unlearn, folder, stage)
    again.train(resume_from_checkpoint=str(folder / "run" / "checkpoint-2"))
    SETTINGS.clear()
    SETTINGS.update(settings)
    assert again.state.global_step == 4
    same = all(torch.equal(one, other) for one, other in zip(expected, pieces(again), strict=True))
    return gather_object([same])


def pieces(trainer: Any) -> list[torch.Tensor]:
    return [piece.detach().clone() for piece in trainer.optimizer.optimizer.optimizer._pieces]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    SETTINGS["use_cpu"] = True
    PartialState(cpu=True)
    said: dict[str, Any] = {}
    for name, build, stage, options in (
        ("npo_2", unlearn, 2, {}),
        ("npo_3", unlearn, 3, {}),
        ("dareu_3", dareu, 3, {"kl_coef": 0.1}),
        ("bf16_3", unlearn, 3, {"bf16": True, "dtype": torch.bfloat16}),
    ):
        trainer = start(build, folder, stage, **options)
        weights, logged = trained(trainer)
        accelerator = trainer.accelerator
        said[name] = {
            "kind": accelerator.distributed_type.value,
            "processes": accelerator.num_processes,
            "stage": accelerator.state.deepspeed_plugin.zero_stage,
            "logged": logged,
            "moments": gather_object([trainer.optimizer.optimizer.optimizer.memory()["moments"]]),
        }
        if PartialState().is_main_process:
            save_file({key: tensor.contiguous() for key, tensor in weights.items()}, folder / f"{name}.safetensors")
    for stage in (2, 3):
        said[f"resumed_{stage}"] = resumed(folder, stage)
    if PartialState().is_main_process:
        (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_process_group()
