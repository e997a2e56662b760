"""Options that trainers have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dareu.trainers.trackers import check_trackers

RETAIN_LOSSES = ("kl", "nll", "none")


@dataclass
class DevicePrecision:
    """bfloat16 where the device has it, and no tracker that is not installed, for a `TrainingArguments`.

    Stands before it in the bases.
    """

    bf16: bool | None = field(  # None until the device is looked at
        default=None, metadata={"help": "Compute in bfloat16; by default where the GPU has it."}
    )
    bf16_on_cpu: bool = field(
        default=False,
        metadata={
            "help": "Compute in bfloat16 also on a processor that has instructions for it, and in float32 on any "
            "other. A small model loses by it."
        },
    )

    def __post_init__(self) -> None:
        if self.bf16 is None:
            fp16 = self.fp16  # type: ignore[attr-defined]  # of the TrainingArguments
            self.bf16 = not fp16 and self._device_has_bfloat16()
            # Where nothing else is to be had, the Trainer wants to hear it before it takes bfloat16
            self.use_cpu: bool = self.use_cpu or (self.bf16 and not torch.accelerator.is_available())
        super().__post_init__()  # type: ignore[misc]  # the TrainingArguments'
        check_trackers(self.report_to)  # type: ignore[attr-defined]

    def _device_has_bfloat16(self) -> bool:
        if torch.cuda.is_available():
            return bool(torch.cuda.is_bf16_supported())
        # Without such instructions bfloat16 is computed step by step, many times slower than float32.
        known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return self.bf16_on_cpu and any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@dataclass
class SharedArguments(DevicePrecision):
    """Options that all unlearning trainers have in common."""

    retain_loss: str = field(
        default="kl",
        metadata={"help": "Retain term on retained rows: 'kl' (forward KL to the original model), 'nll' or 'none'."},
    )
    retain_coef: float = field(default=2.0, metadata={"help": "Weight of the retain term, ≥ 0."})
    retain_kl_target: float | None = field(
        default=None,
        metadata={
            "help": "Hold the KL on retained rows near this, in nats a token: retain_coef is multiplied by a number "
            "that rises while the KL is above and falls while it is below. Default: retain_coef stays as it is."
        },
    )
    retain_batch_size: int | None = field(
        default=None, metadata={"help": "Retained rows a micro-batch; default: per_device_train_batch_size."}
    )
    uninformed_temperature: float = field(
        default=0.5,  # at 1 a small chat model answers in no language what it knows nothing of
        metadata={
            "help": "Temperature at which answers of the base model are drawn, > 0. The model learns from them how to "
            "speak as well as what to say: raise it only where such answers read well."
        },
    )
    validation_steps: int = field(
        default=0, metadata={"help": "Measure the validation judge every so many updates; 0: never."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many validations in a row that found no better state; training ends with the best "
            "one in any case. Default: never."
        },
    )
    stop_forget_attribution: float | None = field(
        default=None,
        metadata={"help": "Stop once the validation judge's forget attribution is at most this."},
    )
    stop_fluency_nll: float | None = field(
        default=None,
        metadata={"help": "Stop once the answers' mean NLL under the base model is at least this."},
    )

    def check(self) -> None:
        """Raises `ValueError` for options that cannot be."""
        if self.retain_loss not in RETAIN_LOSSES:
            raise ValueError(f"retain_loss is {self.retain_loss!r}: give one of {', '.join(RETAIN_LOSSES)}.")
        if not 0 <= self.retain_coef < float("inf"):
            raise ValueError(f"retain_coef is {self.retain_coef}: give a number ≥ 0.")
        if self.retain_batch_size is not None and self.retain_batch_size < 1:
            raise ValueError(f"retain_batch_size is {self.retain_batch_size}: give at least 1, or leave it out.")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"early_stopping_patience is {self.early_stopping_patience}: give at least 1.")
        if self.retain_kl_target is not None:
            if not 0 < self.retain_kl_target < float("inf"):
                raise ValueError(f"retain_kl_target is {self.retain_kl_target}: give a number of nats a token above 0.")
            if self.retain_loss != "kl" or not self.retain_coef:
                raise ValueError("retain_kl_target needs the retain KL: set retain_loss='kl' and retain_coef > 0.")
        if not 0 < self.uninformed_temperature < float("inf"):
            raise ValueError(f"uninformed_temperature is {self.uninformed_temperature}: give a number above 0.")
        if self.validation_steps < 0:
            raise ValueError(f"validation_steps is {self.validation_steps}: give a number of updates, or 0.")

    def check_layers(self, num_layers: int) -> None:
        """Refuses what cannot be with a model of so many layers; a method that names layers overrides it.

        Args:
            num_layers: Decoder layers of the model, ≥ 1.

        Raises:
            ValueError: A layer is named that the model does not have.
        """
