"""Mean gradients over records, summed in float32 while the backward passes run, in memory or on disk."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from dareu.models.forward import IGNORED_LABEL, completion_mean, evaluation_mode
from dareu.weights.entries import local_part
from dareu.weights.sharding import first_not_finite, mesh_of, several_processes, sum_over_processes, summed

Batch = Mapping[str, Tensor]
AccumulateOn = Literal["memory", "disk"]


def mean_gradients(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    sides: Mapping[str, Iterable[Batch]],
    *,
    accumulate_on: AccumulateOn = "memory",
    folder: str | os.PathLike[str] | None = None,
) -> list[dict[str, Tensor]]:
    """Mean over records of the gradient of each record's mean loss over its completion tokens, for each side.

    Each parameter's gradient is added to its float32 sum and dropped as soon as the backward pass has made it, so that
    the gradients never stand in memory together.

    Where torch.distributed connects several processes, all of them must call this, each with a share of the batches,
    and the means are over the records of all. Of sharded parameters each process sums its own part.

    Args:
        model: A causal language model as `wagle_scores` takes it; left as it was.
        parameters: Which of its parameters count, by name.
        sides: The batches of each side, by the name that messages give it.
        accumulate_on: `"memory"`, the device of each parameter; `"disk"`, a memory-mapped file that the system
            pages, without a name and gone with the tensors.
        folder: Where that file is made, on a disk with room for float32 parameters once for each side; default: the
            system's temporary folder.

    Returns:
        For each side, parameter name to float32 gradients of the parameter's shape, sharded as the parameter is.

    Raises:
        ValueError: If a side has no batch, a record has no completion token, a parameter is not of floating point or
            sharded otherwise than by `fully_shard`'s default, a gradient is not finite, `accumulate_on` is unknown
            or `"disk"` for sharded parameters, or the disk is too small.
    """
    mesh = mesh_of(parameters)
    if mesh is not None and accumulate_on == "disk":
        raise ValueError("accumulate_on='disk' is for whole weights; leave the sums of sharded ones in memory.")
    sums = _accumulators(parameters, len(sides), accumulate_on, folder)
    with _scoring(model, parameters):
        for (side, batches), total in zip(sides.items(), sums, strict=True):
            _accumulate(model, parameters, batches, side, total, mesh)
    return sums


def check_floating_point(parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuses weights that take no gradient and have no magnitude that compares with others'."""
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise ValueError(
                f"Parameter {name!r} has dtype {parameter.dtype}, which takes no gradient; "
                "load the model without quantisation to score its weights."
            )


def _accumulators(
    parameters: Mapping[str, nn.Parameter], count: int, on: AccumulateOn, folder: str | os.PathLike[str] | None
) -> list[dict[str, Tensor]]:
    """Zeros of the parameters' shapes, so many times."""
    check_floating_point(parameters)
    if on == "memory":
        return [{n: torch.zeros_like(p, dtype=torch.float32) for n, p in parameters.items()} for _ in range(count)]
    if on != "disk":
        raise ValueError(f"accumulate_on is {on!r}; give 'memory' or 'disk'.")
    where = Path(tempfile.gettempdir() if folder is None else folder)
    if not where.is_dir():
        raise ValueError(f"There is no folder {os.fspath(where)!r} for the sums of gradients; make it first.")
    sizes = [parameter.numel() for parameter in parameters.values()]
    needed, free = 4 * sum(sizes) * count, shutil.disk_usage(where).free
    if needed > free:
        raise ValueError(
            f"The sums of gradients need {needed / 1e9:.1f} GB and {os.fspath(where)!r} has {free / 1e9:.1f} GB "
            "free; give a folder on a larger disk."
        )
    return [_on_disk(parameters, sizes, where) for _ in range(count)]


def _on_disk(parameters: Mapping[str, nn.Parameter], sizes: Sequence[int], folder: Path) -> dict[str, Tensor]:
    # The mapping outlives the file's name, so that nothing is left behind even by a process that is killed.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".gradients-") as file:
        file.truncate(4 * sum(sizes))  # zeros
        flat = torch.from_file(file.name, shared=True, size=sum(sizes), dtype=torch.float32)
    pieces = zip(parameters.items(), flat.split(list(sizes)), strict=True)
    return {name: piece.view(parameter.shape) for (name, parameter), piece in pieces}


@contextmanager
def _scoring(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Evaluation mode, gradients for these parameters alone; puts both back and drops the gradients."""
    requires_grad = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    try:
        with evaluation_mode(model), torch.enable_grad():
            yield
    finally:
        model.zero_grad(set_to_none=True)
        for parameter, required in requires_grad.items():
            parameter.requires_grad_(required)


def _accumulate(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    batches: Iterable[Batch],
    side: str,
    sums: Mapping[str, Tensor],
    mesh: DeviceMesh | None,
) -> None:
    """Turns zeros into the mean gradients of one side."""

    def add(total: Tensor, parameter: Tensor) -> None:
        assert parameter.grad is not None
        local_part(total).add_(local_part(parameter.grad).to(total.device))
        parameter.grad = None

    hooks = [p.register_post_accumulate_grad_hook(partial(add, sums[name])) for name, p in parameters.items()]
    records = 0
    try:
        for batch in batches if mesh is None else _in_step(batches, mesh):
            if batch is None:
                _nothing(model).backward()
                continue
            _sum_of_record_losses(model, batch, side).backward()
            records += len(batch["input_ids"])
    finally:
        for hook in hooks:
            hook.remove()
    if several_processes():
        device = next(model.parameters()).device
        records = int(sum_over_processes(torch.tensor(records), device))
        if mesh is None:
            for total in sums.values():
                sum_over_processes(total, device)
    if not records:
        raise ValueError(f"There is no {side} batch to score the weights with; give at least one {side} record.")
    if (name := first_not_finite(sums)) is not None:
        raise ValueError(
            f"The {side} gradient of parameter {name!r} is not finite; "
            "check the model's weights, or load it in float32."
        )
    for total in sums.values():
        # FSDP2 has taken the mean over the processes, of which none must count less for a smaller share.
        local_part(total).div_(records if mesh is None else records / mesh.size())


def _in_step(batches: Iterable[Batch], mesh: DeviceMesh) -> Iterator[Batch | None]:
    """A process's batches, and None while others have some left, for sharded weights take all processes at once."""
    left = iter(batches)
    while True:
        batch = next(left, None)
        if not summed(torch.tensor(int(batch is not None)), mesh):
            return
        yield batch


def _nothing(model: nn.Module) -> Tensor:
    """A loss that takes the whole model's forward and backward and has gradient zero."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=next(model.parameters()).device)
    logits: Tensor = model(input_ids=token, attention_mask=torch.ones_like(token), use_cache=False).logits
    return 0 * logits.sum()


def _sum_of_record_losses(model: nn.Module, batch: Batch, side: str) -> Tensor:
    """The sum over the records of a batch of each record's mean loss over its completion tokens."""
    device = next(model.parameters()).device
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "labels")}
    if not (inputs["labels"][:, 1:] != IGNORED_LABEL).any(1).all():
        raise ValueError(
            f"A {side} record has no completion token to score (its labels are all {IGNORED_LABEL}); "
            "leave it out, or raise the length at which records are cut."
        )
    return -len(inputs["labels"]) * completion_mean(model, inputs, "logps")
