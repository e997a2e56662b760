"""Training in more than one process: what cannot work is refused, and what is sharded is gathered."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments


#: Measures a model: names to numbers.
Measuring = Callable[[nn.Module], Mapping[str, float]]


def measured_alike(measure: Measuring, model: nn.Module, what: str) -> dict[str, float]:
    """What the main process measures, on every process.

    Every process measures, for a sharded model takes all of them.

    Args:
        measure: Gives finite numbers by name.
        model: The unwrapped model.
        what: Names the measuring in errors.

    Raises:
        ValueError: A number is not finite.
    """
    measured: dict[str, float] = broadcast_object_list([dict(measure(model))])[0]
    for name, value in measured.items():
        if not math.isfinite(value):
            raise ValueError(f"{what} gives {value} as {name}: give finite numbers.")
    return {name: float(value) for name, value in measured.items()}


def check_vllm(args: Any) -> None:
    """Refuses rollouts by vLLM where there is no vLLM, or no GPU for it.

    Args:
        args: A `GRPOConfig`; its `use_vllm` and `use_cpu` are read.

    Raises:
        ValueError: `use_vllm` is set and cannot be had.
    """
    if not args.use_vllm:
        return
    if find_spec("vllm") is None:
        raise ValueError("use_vllm needs vLLM, which is not installed: pip install 'trl[vllm]', or leave use_vllm out.")
    if args.use_cpu or not torch.accelerator.is_available():
        raise ValueError("use_vllm needs a GPU, also for a trainer beside a vLLM server: leave use_vllm out on a CPU.")


def check_launch(args: TrainingArguments, *, masked: bool) -> None:
    """Refuses ways of sharding that the trainers do not support; call it before weights are looked at.

    Args:
        args: The options; accelerate's launcher says the rest in environment variables.
        masked: Whether training is under a weight mask.

    Raises:
        ValueError: FSDP1, FSDP whose other processes have no weights, or a mask under DeepSpeed without ZeRO or with
            offloading.
    """
    if args.fsdp_plugin_args is not None:
        _check_fsdp(int(args.fsdp_plugin_args["fsdp_version"]))
    else:
        _check_fsdp(_launched_fsdp())
    if masked and args.deepspeed_plugin is not None:
        if args.deepspeed_plugin.zero_stage == 0:
            raise ValueError("A weight mask under DeepSpeed takes ZeRO: set zero_stage to 1, 2 or 3.")
        if args.deepspeed_plugin.hf_ds_config.is_offload():
            raise ValueError(
                "A weight mask and ZeRO's offloading exclude each other: set offload_optimizer_device and "
                "offload_param_device to none."
            )


def check_scoring_launch() -> None:
    """Refuses ways of sharding in which weights cannot be scored; call it before weights are looked at.

    Raises:
        ValueError: DeepSpeed, FSDP1, or FSDP whose other processes have no weights.
    """
    if _flag("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError("Weights are not scored under DeepSpeed: use FSDP2, DDP or one process.")
    _check_fsdp(_launched_fsdp())


def check_started(accelerator: Accelerator) -> None:
    """Refuses to go on where accelerate fell back to less than the launcher asked for, which it does silently.

    Raises:
        ValueError: Fewer processes than asked for, or no FSDP or DeepSpeed though asked for.
    """
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != asked:
        raise ValueError(
            f"{asked} processes were launched, but accelerate runs as {accelerator.num_processes}: launch with "
            "accelerate or torchrun, and with use_cpu where there are fewer GPUs than processes."
        )
    kinds = {"ACCELERATE_USE_FSDP": DistributedType.FSDP, "ACCELERATE_USE_DEEPSPEED": DistributedType.DEEPSPEED}
    for variable, kind in kinds.items():
        if _flag(variable) and accelerator.distributed_type != kind:
            raise ValueError(
                f"{kind.value} was asked for, but accelerate runs {accelerator.distributed_type.value} here, as it "
                "does on a CPU or without torchrun: launch on GPUs, or use --accelerate_config ddp or single."
            )


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds a part of the weights only, so that every forward needs all processes."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return bool(accelerator.state.deepspeed_plugin.zero_stage == 3)
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def load_whole_weights() -> None:
    """Lets `from_pretrained` give every process whole weights, also under ZeRO-3, which would split them.

    Models that are not trained, such as judges, could not run on the parts; the trained one is split when training
    begins.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def frozen_copy(model: nn.Module) -> nn.Module:
    """A whole copy that nothing trains.

    Raises:
        ValueError: ZeRO-3 has split the weights while they were loaded, so that there is nothing to copy.
    """
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise ValueError(
            "ZeRO-3 has split the model while it was loaded, so that the original cannot be remembered: give the "
            "trainer the model's path, or call dareu.trainers.processes.load_whole_weights() before loading it."
        )
    return copy.deepcopy(model).eval().requires_grad_(False)


def place_frozen(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """A frozen model on this process's device, sharded as the trained one is; every process must call this."""
    if accelerator.distributed_type == DistributedType.FSDP:
        from accelerate.utils import fsdp2_prepare_model

        sharded: nn.Module = fsdp2_prepare_model(accelerator, model)
        return sharded
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from trl.models.utils import prepare_deepspeed

        engine: nn.Module = prepare_deepspeed(model, accelerator)
        return engine
    return model.to(accelerator.device)


def gathered_weights(trainer: Trainer) -> dict[str, Tensor] | None:
    """The whole weights of a trained model whose processes hold parts of it; every process must call this.

    Returns:
        Names to tensors on the main process, nothing of use on the others; None where weights are not sharded.
    """
    if not is_sharded(trainer.accelerator):
        return None
    weights: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


def _check_fsdp(version: int | None) -> None:
    if version == 1:
        raise ValueError("FSDP1 is not supported: launch with fsdp_version: 2, as --accelerate_config fsdp2 does.")
    if version is not None and _flag("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        raise ValueError(
            "fsdp_cpu_ram_efficient_loading leaves every process but one without the weights, which each of them reads "
            "before they are sharded: set it to false."
        )


def _launched_fsdp() -> int | None:
    """The version of FSDP that the launcher asks for."""
    return int(os.environ.get("FSDP_VERSION", "1")) if _flag("ACCELERATE_USE_FSDP") else None


def _flag(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true")
