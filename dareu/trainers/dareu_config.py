"""The options of `DareUTrainer`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from trl import GRPOConfig

from dareu.trainers.unlearning import UnlearningArguments


@dataclass
class DareUConfig(UnlearningArguments, GRPOConfig):
    """TRL's `GRPOConfig` with what de-attribution adds, and defaults that suit it.

    Changed defaults: a learning rate of 1e-5 (TRL's 1e-6 hardly moves full weights), no division of advantages by
    the group's deviation (a saturated classifier would turn noise into full-size advantages), bf16 only on a GPU that
    has it, no gradient checkpointing, and completions that were cut off are masked.

    Raises:
        ValueError: An option cannot be, or two exclude each other.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate of AdamW."})
    num_slices: int = field(
        default=15, metadata={"help": "Slices a completion is scored at (k; the paper tests 10 to 20)."}
    )
    return_mode: str = field(
        default="mean",
        metadata={
            "help": "What a token earns: 'mean' of the remaining tokens' rewards, or their 'sum' as in the paper, "
            "which makes short answers pay."
        },
    )
    kl_coef: float = field(
        default=0.1, metadata={"help": "Weight of the KL to the original model on generations (λ_KL), ≥ 0."}
    )
    rollout_policy: str = field(
        default="current",
        metadata={
            "help": "'current': generations come from the model in training. 'original': from the model before "
            "unlearning; generated, scored and given their log-probabilities once, before training."
        },
    )
    scale_rewards: str = field(
        default="none", metadata={"help": "Divide advantages by a deviation: 'none', 'batch' or 'group'."}
    )
    mask_truncated_completions: bool = field(
        default=True, metadata={"help": "Leave completions without an end token out of the loss."}
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Recompute activations to save memory; slower."}
    )

    def __post_init__(self) -> None:
        if self.beta != 0.0:
            raise ValueError(
                "beta must stay 0: TRL would load a second model from disk for it. kl_coef weighs the KL to the "
                "original model."
            )
        if self.return_mode not in ("mean", "sum"):
            raise ValueError(f"return_mode is {self.return_mode!r}: give 'mean' or 'sum'.")
        if self.rollout_policy not in ("current", "original"):
            raise ValueError(f"rollout_policy is {self.rollout_policy!r}: give 'current' or 'original'.")
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError("multi_objective_aggregation must stay 'sum_then_normalize': scaling follows the sum.")
        if self.num_slices < 1:
            raise ValueError(f"num_slices is {self.num_slices}: give at least 1.")
        if not self.kl_coef >= 0:
            raise ValueError(f"kl_coef is {self.kl_coef}: give a number ≥ 0.")
        if self.bf16 is None:
            self.bf16 = not self.fp16 and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        if self.use_transformers_continuous_batching and self.bf16:
            raise ValueError(
                "use_transformers_continuous_batching casts the trained weights to bf16 for good: "
                "set bf16=False, or leave continuous batching off."
            )
        super().__post_init__()  # type: ignore[no-untyped-call]
