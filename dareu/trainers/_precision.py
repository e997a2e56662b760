"""In what precision is computed, where nobody says."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class DevicePrecision:
    """bfloat16 where the GPU has it, for a `TrainingArguments`; stands before it in the bases."""

    bf16: bool | None = field(  # None until the device is looked at
        default=None, metadata={"help": "Compute in bfloat16; by default where the GPU has it."}
    )

    def __post_init__(self) -> None:
        if self.bf16 is None:
            fp16 = self.fp16  # type: ignore[attr-defined]  # of the TrainingArguments
            self.bf16 = not fp16 and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        super().__post_init__()  # type: ignore[misc]  # the TrainingArguments'
