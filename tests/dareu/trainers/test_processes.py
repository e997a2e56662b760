"""What is refused before anything starts; tests/distributed holds what works."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import DistributedType
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from transformers import LlamaForCausalLM

import dareu.trainers.processes as processes
from dareu.trainers import UnlearnConfig


def vllm(**changes: Any) -> Any:
    return SimpleNamespace(**{"use_vllm": True, "use_cpu": False} | changes)


def test_vllm_needs_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="use_vllm needs vLLM, which is not installed"):
        processes.check_vllm(vllm())
    processes.check_vllm(vllm(use_vllm=False))


@pytest.mark.parametrize(("gpu", "changes"), [(False, {}), (True, {"use_cpu": True})])
def test_vllm_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, gpu: bool, changes: dict[str, Any]) -> None:
    monkeypatch.setattr(processes, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    with pytest.raises(ValueError, match="use_vllm needs a GPU"):
        processes.check_vllm(vllm(**changes))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    processes.check_vllm(vllm())


@pytest.mark.parametrize(
    ("environment", "masked", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, False, "FSDP1 is not supported"),  # accelerate's default version
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, False, "FSDP1 is not supported"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
            False,
            "fsdp_cpu_ram_efficient_loading leaves every process but one without the weights",
        ),
    ],
)
def test_launches_that_cannot_work_are_refused(
    unlearn_config: Callable[..., UnlearnConfig],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    masked: bool,
    message: str,
) -> None:
    args = unlearn_config()
    processes.check_launch(args, masked=True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        processes.check_launch(args, masked=masked)


def test_fsdp1_by_the_trainers_own_option_is_refused(unlearn_config: Callable[..., UnlearnConfig]) -> None:
    args = unlearn_config()
    args.fsdp_plugin_args = {"fsdp_version": 1}
    with pytest.raises(ValueError, match="FSDP1 is not supported"):
        processes.check_launch(args, masked=False)


@pytest.mark.parametrize(
    ("stage", "offload", "message"),
    [
        (0, "none", "A weight mask under DeepSpeed takes ZeRO"),
        (2, "cpu", "A weight mask and ZeRO's offloading exclude each other"),
        (3, "none", None),
    ],
)
def test_a_mask_takes_zero_without_offloading(
    unlearn_config: Callable[..., UnlearnConfig], stage: int, offload: str, message: str | None
) -> None:
    args = unlearn_config()
    config = HfDeepSpeedConfig({"zero_optimization": {"stage": stage, "offload_optimizer": {"device": offload}}})
    args.deepspeed_plugin = SimpleNamespace(zero_stage=stage, hf_ds_config=config)
    processes.check_launch(args, masked=False)
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        processes.check_launch(args, masked=True)


def test_weights_are_not_scored_under_deepspeed_or_fsdp1(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.check_scoring_launch()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP1 is not supported"):
        processes.check_scoring_launch()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="Weights are not scored under DeepSpeed"):
        processes.check_scoring_launch()


def started(kind: DistributedType, number: int) -> Any:
    return SimpleNamespace(distributed_type=kind, num_processes=number)


def test_a_silent_fallback_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.check_started(started(DistributedType.NO, 1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    processes.check_started(started(DistributedType.MULTI_CPU, 2))
    with pytest.raises(ValueError, match="2 processes were launched, but accelerate runs as 1"):
        processes.check_started(started(DistributedType.NO, 1))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    processes.check_started(started(DistributedType.FSDP, 2))
    with pytest.raises(ValueError, match="FSDP was asked for, but accelerate runs MULTI_CPU here"):
        processes.check_started(started(DistributedType.MULTI_CPU, 2))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="DEEPSPEED was asked for"):
        processes.check_started(started(DistributedType.MULTI_GPU, 2))


def test_a_frozen_copy_is_whole_and_of_its_own(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama()
    copy = processes.frozen_copy(model)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    assert torch.equal(copy.lm_head.weight, tiny_llama().lm_head.weight)
    assert not any(parameter.requires_grad for parameter in copy.parameters()) and not copy.training


def test_split_weights_are_not_copied(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama()
    model.lm_head.weight.ds_id = 0  # as ZeRO-3 marks them
    with pytest.raises(ValueError, match="ZeRO-3 has split the model"):
        processes.frozen_copy(model)
