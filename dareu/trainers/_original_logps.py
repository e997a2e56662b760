"""What π_N says of fixed records: constant, so computed once and kept in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from dareu.data.encoding import CompletionCollator, EncodedRecord
from dareu.models.forward import completion_terms
from dareu.trainers._forget_tensors import summed_logps
from dareu.trainers._tensor_file import TensorFile
from dareu.trainers.original import Original


def original_logps(
    original: Original,
    records: Sequence[EncodedRecord],
    collator: CompletionCollator,
    *,
    batch_size: int,
    accelerator: Accelerator,
    folder: str,
    identity: Mapping[str, Any],
) -> Tensor:
    """π_N's summed log-probabilities of the completions of all records; every process must call this.

    They are taken from their file where the same model was asked about the same records before; the main process
    writes it.

    Args:
        original: Gives π_N.
        records: At least one.
        collator: Pads them.
        batch_size: Records a forward.
        accelerator: Of the training.
        folder: Where the files are kept.
        identity: What is known of π_N: its fingerprint, and in what precision it computes.

    Returns:
        float32 (len(records),), on the accelerator's device.
    """
    file = TensorFile(folder, {"model": identity, "records": records}, "log-probabilities of the original model")

    def read(tensors: dict[str, Tensor], _: dict[str, str]) -> list[float]:
        logps = tensors["logps"]
        if logps.shape != (len(records),) or logps.dtype != torch.float32 or not logps.isfinite().all():
            raise ValueError(f"{tuple(logps.shape)} of {logps.dtype}")
        values: list[float] = logps.tolist()
        return values

    known = broadcast_object_list([file.load(read) if accelerator.is_main_process else None])[0]
    if known is not None:
        return torch.tensor(known, device=accelerator.device)
    parts = []
    for start in range(0, len(records), batch_size):
        batch = collator(records[start : start + batch_size])
        batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
        with original() as model, accelerator.autocast():
            parts.append(summed_logps(completion_terms(model, batch)))
    logps = torch.cat(parts)
    if accelerator.is_main_process:
        file.save({"logps": logps.cpu()})
    return logps
