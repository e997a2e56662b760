"""Weights that `torch.distributed.fsdp.fully_shard` has spread over processes, and sums over these."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from dareu.weights.entries import flat_part, local_part

_PIECE = 1 << 24
"""Entries that are sent together; bounds what is copied to the device for it."""


def reshard(model: nn.Module) -> None:
    """Lets the model's parameters be the sharded ones, which FSDP2 leaves gathered after some forwards."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def mesh_of(tensors: Mapping[str, Tensor]) -> DeviceMesh | None:
    """The processes over which tensors are sharded; None where they are whole.

    Raises:
        ValueError: If they are sharded otherwise than by rows over all processes, or only some of them are.
    """
    sharded = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    if not sharded:
        return None
    for name in tensors:
        if name not in sharded:
            raise ValueError(
                f"Parameter {name!r} is whole and others are sharded; call fully_shard on the whole model."
            )
    mesh = next(iter(sharded.values())).device_mesh
    for name, tensor in sharded.items():
        placements = tensor.placements
        if tensor.device_mesh != mesh or mesh.size() != dist.get_world_size() or tuple(placements) != (Shard(0),):
            raise ValueError(
                f"Parameter {name!r} is sharded as {placements}; shard along the first dimension, over all processes "
                "in one mesh of one dimension, as fully_shard does by default."
            )
    return mesh


def several_processes() -> bool:
    """Whether this is one of several processes that torch.distributed connects."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(tensor: Tensor, device: torch.device) -> Tensor:
    """The sum over all processes, written to the tensor; the same bits on each.

    Args:
        tensor: Of one shape everywhere; of a DTensor, the own parts are summed.
        device: Where the processes' backend computes.
    """
    with flat_part(tensor) as flat:
        for piece in flat.split(_PIECE):
            there = piece.to(device)
            dist.all_reduce(there)
            if there is not piece:
                piece.copy_(there)
    return tensor


def summed(numbers: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """Numbers of each process's parts summed over a mesh, those of whole tensors as they are."""
    return numbers if mesh is None else sum_over_processes(numbers, torch.device(mesh.device_type))


def gathered(numbers: Tensor, mesh: DeviceMesh) -> Tensor:
    """Numbers (n,) of each process of a mesh, (processes, n) in their order, on the CPU."""
    mine = numbers.to(mesh.device_type)
    everyone = [torch.empty_like(mine) for _ in range(mesh.size())]
    dist.all_gather(everyone, mine, group=mesh.get_group())
    return torch.stack(everyone).cpu()


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, gathered where it is sharded; every process must call this then, and gets it."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def sharded_like(local: Tensor, like: Tensor) -> Tensor:
    """The tensor that is sharded as another one is and has these parts, of any dtype; where that is whole, the part."""
    if not isinstance(like, DTensor):
        return local
    mesh, placements = like.device_mesh, like.placements
    local = local.to(mesh.device_type)
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinity, on whichever process it is; all of them must ask."""
    mesh = mesh_of(tensors)
    if mesh is None:
        return next((name for name, tensor in tensors.items() if not _all_finite(tensor)), None)
    bad = torch.tensor([not _all_finite(local_part(tensor)) for tensor in tensors.values()], dtype=torch.int64)
    return next((name for name, count in zip(tensors, summed(bad, mesh).tolist(), strict=True) if count), None)


def _all_finite(values: Tensor) -> bool:
    """Whether there is no NaN and no infinity, without a copy of the values."""
    return not values.numel() or all(bool(end.isfinite()) for end in values.aminmax())
