"""The options of which weights are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from peft import LoraConfig

from dareu.models import adapter_base, load_adapter, load_model, resolve_model_path
from dareu.values import READ


@dataclass
class PolicyArguments:
    """Which weights are trained: of which model, under which mask, through LoRA; names as in TRL's `ModelConfig`."""

    model_name_or_path: Annotated[str, READ] = field(
        metadata={"help": "The target: a model or adapter folder, or a hub id."}
    )
    mask: Annotated[str | None, READ] = field(
        default=None,
        metadata={"help": "A mask.safetensors made for this model: the weights that may move; default: all of them."},
    )
    dtype: str = field(
        default="float32",
        metadata={
            "help": "Number format of the weights: 'float32', or 'bfloat16' with LoRA or under a mask, whose entries "
            "are then trained in float32 copies. Computing in bfloat16 is another matter (bf16)."
        },
    )
    use_peft: bool = field(
        default=False, metadata={"help": "Train a fresh LoRA adapter; a target that is an adapter is merged first."}
    )
    continue_adapter: bool = field(default=False, metadata={"help": "Train on the adapter that the target is."})
    merge_adapter: bool = field(
        default=True, metadata={"help": "Save the model with the adapter merged into it; otherwise the adapter alone."}
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of LoRA (the DareU paper's)."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of LoRA (the DareU paper's)."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of what goes into the adapter."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["all-linear"],
        metadata={"help": "Modules that get an adapter of LoRA; 'all-linear': every linear layer."},
    )

    @property
    def lora(self) -> bool:
        """Whether an adapter is trained."""
        return self.use_peft or self.continue_adapter

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}: give 'float32' or 'bfloat16'.")
        if self.use_peft and self.continue_adapter:
            raise ValueError("use_peft adds a fresh adapter and continue_adapter trains the target's own: give one.")
        if not self.merge_adapter and not self.lora:
            raise ValueError(
                "merge_adapter=False leaves an adapter unmerged: it goes with use_peft or continue_adapter."
            )

    def origin(self) -> str | None:
        """The base of a target that is an adapter, once it is known that the target can be trained and saved.

        No weights are read.

        Raises:
            ValueError: Target and options do not go together.
        """
        path = self.model_name_or_path
        base = adapter_base(resolve_model_path(path))
        if self.continue_adapter and base is None:
            raise ValueError(f"continue_adapter needs a target that is an adapter, which {path} is not: give use_peft.")
        if not self.merge_adapter and self.use_peft and base is not None:
            raise ValueError(
                f"merge_adapter=False needs a base that is saved somewhere, but the fresh adapter's is {path} merged "
                f"into {base}: leave merge_adapter out, or train on the target's own adapter with continue_adapter."
            )
        if self.dtype == "bfloat16" and self.mask is None and not self.lora:
            raise ValueError(
                "dtype=bfloat16 loses small updates of all weights: train under a mask or with LoRA, or keep float32 "
                "weights and compute in bfloat16 with bf16."
            )
        return base

    def load(self) -> Any:
        """The target as it is trained: a model, or an adapter on its base.

        Raises:
            ValueError: It cannot be loaded, or is quantised and more than an adapter would change.
        """
        load = load_adapter if self.continue_adapter else load_model
        model: Any = load(self.model_name_or_path, dtype=getattr(torch, self.dtype))
        if getattr(model, "is_quantized", False) and (self.merge_adapter or not self.lora):
            raise ValueError(
                f"The weights of {self.model_name_or_path} are quantised, so that they cannot be trained and no "
                "adapter be merged into them: give it unquantised, or train an adapter with merge_adapter=False."
            )
        return model

    def fresh_adapter(self) -> LoraConfig | None:
        """The adapter that is trained, where it is a fresh one."""
        if not self.use_peft:
            return None
        modules = self.lora_target_modules
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=modules[0] if modules == ["all-linear"] else modules,
            task_type="CAUSAL_LM",
        )
