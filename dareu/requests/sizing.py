"""Which weights a model can be trained with on the memory there is, and in how large a micro-batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dareu.methods import Method
from dareu.models import adapter_base, context_length, resolve_model_path
from dareu.runs.memory_plan import MemoryPlan, empty_model, memory_plan

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

#: Ways of training, the most thorough first, and what they are called.
WAYS = {"all": "all weights", "mask": "the weights that a mask selects", "lora": "a LoRA adapter"}

#: Share of the memory that is planned with; see `dareu.runs.memory_plan`.
_USED = 0.85
#: Rows of a micro-batch, the fastest first; whole groups of 8 completions.
_MICRO_BATCHES = (64, 32, 16, 8)


class Size(NamedTuple):
    """How a model is trained."""

    way: str
    """One of `WAYS`."""
    micro_batch: int
    """Rows, of a loss-based method at most 32."""
    plan: MemoryPlan
    """What it takes."""
    available: int
    """Bytes that the device has."""
    reason: str
    """Why this way, in one sentence."""
    num_parameters: int
    context: int | None
    """Most tokens that the model reads at once; None where it states no limit."""
    fits: bool


def size_of(
    model: str,
    method: Method,
    *,
    way: str,
    density: float,
    prompt_tokens: int,
    completion_tokens: int,
    num_judges: int,
    use_cpu: bool = False,
    available: int | None = None,
) -> Size:
    """The first way, and in it the largest micro-batch, that the memory has room for.

    Args:
        model: Its folder or hub id.
        method: Of the training.
        way: One of `WAYS`, or "auto" for all of them in turn.
        density: Share of the weights that a mask selects.
        prompt_tokens: Of the longest prompt.
        completion_tokens: Of the longest completion.
        num_judges: Models of the same size that stay beside it.
        use_cpu: Whether a GPU is left aside.
        available: Bytes of memory; default: those of the GPU, or of the machine.

    Returns:
        The size; the smallest there is, with `fits` False, where there is room for none.
    """
    available = memory_of(use_cpu=use_cpu) if available is None else available
    config = model_config(model)
    judges = [empty_model(config)] * num_judges
    of_model = sum(parameter.numel() for parameter in empty_model(config).parameters()), context_length(config)
    asked = tuple(WAYS) if way == "auto" else (way,)
    for name, rows, plan in _plans(config, method, asked, density, prompt_tokens, completion_tokens, judges):
        found = Size(name, rows, plan, available, "", *of_model, plan.total <= _USED * available)
        if found.fits:
            break
    return found._replace(reason=_reason(found, forced=way != "auto"))


def model_config(model: str) -> PreTrainedConfig:
    """The config of a folder or hub id; an adapter's is its base model's."""
    from transformers import AutoConfig

    path = resolve_model_path(model)
    config: PreTrainedConfig = AutoConfig.from_pretrained(resolve_model_path(adapter_base(path) or path))
    return config


def memory_of(*, use_cpu: bool = False) -> int:
    """Bytes of the GPU, or of the machine where there is none or it is left aside."""
    if torch.cuda.is_available() and not use_cpu:
        return int(torch.cuda.mem_get_info()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _plans(
    config: PreTrainedConfig,
    method: Method,
    ways: tuple[str, ...],
    density: float,
    prompt_tokens: int,
    completion_tokens: int,
    judges: list[Any],
) -> Iterator[tuple[str, int, MemoryPlan]]:
    from peft import LoraConfig, get_peft_model

    for way in ways:
        model: Any = empty_model(config)
        selected = round(density * sum(p.numel() for p in model.parameters())) if way == "mask" else None
        if way == "lora":
            with torch.device("meta"):
                model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        for rows in _MICRO_BATCHES:
            plan = memory_plan(
                model,
                rows=rows,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                retain_rows=rows,
                rollout_rows=64 if method.loss is None else 0,
                selected=selected,
                judges=judges,
                autocast=torch.cuda.is_available(),
                on_gpu=torch.cuda.is_available(),
            )
            yield way, rows, plan


def _reason(size: Size, *, forced: bool) -> str:
    what = f"{size.plan.total / 1e9:.1f} GB of the {size.available / 1e9:.1f} GB there are"
    if not size.fits:
        return f"Training {WAYS[size.way]} wants {what}, which may be too little."
    if forced:
        return f"Training {WAYS[size.way]}, as was asked, takes {what}."
    passed = [WAYS[way] for way in list(WAYS)[: list(WAYS).index(size.way)]]
    more = f"; there is no room for {' or '.join(passed)}" if passed else ""
    return f"Training {WAYS[size.way]} takes {what}{more}."
