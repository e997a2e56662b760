"""Trainings of two processes that go on from a checkpoint of their own; run by torchrun from the tests beside it.

    python -m torch.distributed.run --nproc_per_node 2 resumed.py FOLDER

FOLDER holds a model and its tokenizer. The main process writes what it found to said.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

sys.path.insert(0, str(Path(__file__).parents[1] / "dareu" / "trainers"))
import interrupted

from dareu.runs.program import leave_process_group
from dareu.trainers.checkpoints import what_is_wrong


def weights(trainer: Any) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in trainer.model.parameters()]


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    interrupted.DAREU["per_device_train_batch_size"] = 2  # two processes share a group
    interrupted.SETTINGS["save_total_limit"] = None
    said: dict[str, Any] = {}
    for case in ("dareu", "npo"):
        output = folder / case
        whole = interrupted.build(case, folder, output)
        whole.train()
        names = sorted(path.name for path in output.iterdir() if "checkpoint" in path.name)
        resumed = interrupted.build(case, folder, output)
        resumed.train(resume_from_checkpoint=str(output / "checkpoint-8"))  # within an epoch, and not the first
        same = all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))
        said[case] = {
            "same": bool(whole.accelerator.gather(torch.tensor([same])).all()),
            "checkpoints": names,
            "wrong": [what_is_wrong(output / name) for name in names],
            "files": sorted(path.name for path in (output / "checkpoint-8").glob("rng_state_*")),
            "kind": whole.accelerator.distributed_type.value,
            "processes": whole.accelerator.num_processes,
        }
    if PartialState().is_main_process:
        (folder / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
    leave_process_group()
