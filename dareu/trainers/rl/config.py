"""The options of `DareUTrainer`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Annotated, Any

from trl import GRPOConfig

from dareu.trainers.arguments import SharedArguments
from dareu.trainers.processes import check_vllm
from dareu.trainers.rl.estimators import ESTIMATORS, Estimator, find_estimator
from dareu.values import PLUGIN, READ, as_mapping


@dataclass
class DareUConfig(SharedArguments, GRPOConfig):  # type: ignore[misc]  # the types of bf16
    """TRL's `GRPOConfig` with what de-attribution adds, and defaults that suit it.

    Changed defaults: a learning rate of 1e-5 (TRL's 1e-6 hardly moves full weights), no division of advantages by
    the group's deviation (a saturated classifier would turn noise into full-size advantages), bf16 only on a GPU that
    has it, no gradient checkpointing, and completions that were cut off are masked.

    Raises:
        ValueError: An option cannot be, or two exclude each other.
    """

    # `TrainingArguments` turns JSON strings from the command line into dicts for these.
    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "estimator_kwargs"]  # noqa: RUF012  # as in the base

    #: Follows from steps_per_generation, and TRL takes only one of the two.
    derived = ("generation_batch_size",)

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate of AdamW."})
    advantage_estimator: Annotated[str, PLUGIN] = field(
        default="group",
        metadata={
            "help": f"{', '.join(ESTIMATORS)}, or one of your own as pkg.mod:Name or path/to/file.py:Name. 'group': a "
            "token's return minus the mean of its group. 'gae': PPO as in the paper, against a critic (a learned value "
            "head), as every estimator is that asks for values; one completion a prompt will do."
        },
    )
    estimator_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict, metadata={"help": "Options of the estimator, as YAML or JSON."}
    )
    num_generations: int | None = field(
        default=None, metadata={"help": "Completions a prompt; default: 8, and 1 with a critic."}
    )
    num_gold: int | None = field(
        default=None,
        metadata={
            "help": "Of a group's completions, how many are the row's gold one, whose tokens count "
            "min(1, (π/π_N)^gold_beta). Default: a quarter of the group where a base model is given, else 0."
        },
    )
    gold_beta: float = field(
        default=1.0,
        metadata={
            "help": "How fast the push on a gold token fades as the token becomes unlikely, ≥ 0: 1 as an importance "
            "ratio does, 0 not before it is as unlikely as to the base model."
        },
    )
    num_uninformed: int | None = field(
        default=None,
        metadata={
            "help": "Of a group's completions, how many are answers of the base model, drawn once before training. "
            "Default: a quarter of the group where a base model is given, else 0."
        },
    )
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
    causal_returns: bool = field(
        default=False,
        metadata={
            "help": "Leave out of a token's return what was decided before it, which is noise where all completions "
            "are samples of the policy. A gold one is none, and what follows the first blame in it is then pushed down "
            "less. A critic never does, for it judges the rest by what came before."
        },
    )
    kl_coef: float = field(
        default=0.1, metadata={"help": "Weight of the KL to the original model on generations (λ_KL), ≥ 0."}
    )
    gamma: float = field(default=1.0, metadata={"help": "Discount γ of gae, in [0, 1] (the paper states none)."})
    lam: float = field(
        default=0.95,
        metadata={"help": "Share λ_GAE of later rewards in the advantages of gae, in [0, 1] (the paper states none)."},
    )
    vf_coef: float = field(
        default=0.2,
        metadata={
            "help": "Weight of a critic's value loss (the paper's). It matters with detach_value_head=False "
            "only: the head's own AdamW does not depend on the scale of its loss."
        },
    )
    cliprange_value: float | None = field(
        default=None,
        metadata={
            "help": "How far a critic's value may move from the old one within the value loss, in units of the "
            "returns: a head that begins at 0 comes to summed ones by no small steps. Default: as far as it likes."
        },
    )
    value_learning_rate: float = field(
        default=1e-3, metadata={"help": "Constant learning rate of the AdamW of a critic's value head."}
    )
    detach_value_head: bool = field(
        default=True,
        metadata={"help": "Train a critic's value head alone, so that its loss leaves the model as it is."},
    )
    whiten_advantages: bool = field(
        default=False,
        metadata={
            "help": "Give the advantages of gae mean 0 and deviation 1 in each generation batch, as PPO often does: "
            "what a good critic leaves unexplained, which is noise, then counts in full."
        },
    )
    rollout_policy: str = field(
        default="current",
        metadata={
            "help": "'current': generations come from the model in training. 'original': from the model before "
            "unlearning; generated, scored and given their log-probabilities once, before training."
        },
    )
    rollout_batch_size: int = field(
        default=64,
        metadata={
            "help": "Completions that are generated at once on a device, of like expected length; fewer need less "
            "memory, more keep a GPU busier."
        },
    )
    rollout_cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "The folder that keeps the original model's completions, known by their content; default: a part "
            "of the output folder. Runs that begin with the same weights may share it."
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
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must stay False: rewards read the other columns of the data.")
        if self.max_completion_length is None:
            raise ValueError("max_completion_length is None: give the most tokens that a completion may have.")
        if isinstance(self.scale_rewards, bool):  # which TRL takes, too
            self.scale_rewards = "group" if self.scale_rewards else "none"
        estimator = self.estimator()
        self._check_estimator(estimator)
        if self.rollout_policy == "original" and self.use_vllm and self.vllm_importance_sampling_correction:
            raise ValueError(
                "rollout_policy='original' takes the samples' log-probabilities from the model itself: set "
                "vllm_importance_sampling_correction=False."
            )
        if self.chat_template_kwargs:
            raise ValueError(
                "chat_template_kwargs would reach the rollouts but not the retained rows: write what they say into the "
                "tokenizer's chat_template."
            )
        if self.rollout_batch_size < 1:
            raise ValueError(f"rollout_batch_size is {self.rollout_batch_size}: give at least 1.")
        if self.num_slices < 1:
            raise ValueError(f"num_slices is {self.num_slices}: give at least 1.")
        if not 0 <= self.kl_coef < math.inf:
            raise ValueError(f"kl_coef is {self.kl_coef}: give a number ≥ 0.")
        if not 0 <= self.gold_beta < math.inf:
            raise ValueError(f"gold_beta is {self.gold_beta}: give a number ≥ 0.")
        if self.num_generations is None:
            self.num_generations = 1 if estimator.has_critic else 8
        alone = estimator.has_critic and self.num_generations == 1
        if alone:
            # TRL insists on groups. Any size that divides the generation batch passes its checks, none of which
            # means anything here.
            steps = self.steps_per_generation or self.gradient_accumulation_steps
            batch = self.generation_batch_size or self.per_device_train_batch_size * steps
            self.num_generations = batch if batch > 1 else int(os.environ.get("WORLD_SIZE", "1"))
            self.num_generations_eval = self.num_generations_eval or 1
            if self.num_generations < 2:
                raise ValueError(
                    "TRL takes no generation batch of one completion: raise per_device_train_batch_size or "
                    "steps_per_generation."
                )
        self._check_guides(self.num_gold or 0, self.num_uninformed or 0)
        check_vllm(self)
        super().__post_init__()
        if alone:
            self.num_generations = 1
        if self.load_best_model_at_end or self.save_strategy == "best":
            self._check_best()
        if self.use_transformers_continuous_batching and self.bf16:
            raise ValueError(
                "use_transformers_continuous_batching casts the trained weights to bf16 for good: "
                "set bf16=False, or leave continuous batching off."
            )

    def _check_best(self) -> None:
        """A checkpoint waits until its rollout is used up, and would not be that of the state that was evaluated."""
        assert self.steps_per_generation is not None, "TRL has set it"
        used = self.steps_per_generation * self.num_iterations
        every = used // math.gcd(used, self.gradient_accumulation_steps)
        steps = self.eval_steps or 0
        if self.eval_strategy != "steps" or steps != int(steps) or steps % every:
            raise ValueError(
                "The best model can be kept only where a rollout is used up: set eval_strategy and save_strategy to "
                f"'steps', and eval_steps and save_steps to multiples of {every}."
            )

    def estimator(self) -> Estimator:
        """The advantage estimator with its options.

        Raises:
            ValueError: There is none of that name, it asks for what nobody offers, or it has no such options.
        """
        return find_estimator(self.advantage_estimator, as_mapping("estimator_kwargs", self.estimator_kwargs))

    def guides(self, base_given: bool) -> tuple[int, int]:
        """How many gold completions and answers of the base model a group has.

        Args:
            base_given: Whether there is a base model.

        Raises:
            ValueError: Some are asked for, and there is no base model.
        """
        if not base_given and (self.num_gold or self.num_uninformed):
            raise ValueError(
                "num_gold and num_uninformed need base_model, the checkpoint that the target was fine-tuned from: give "
                "it, or leave them out."
            )
        quarter = (self.num_generations or 1) // 4 if base_given else 0
        golds = quarter if self.num_gold is None else self.num_gold
        uninformed = quarter if self.num_uninformed is None else self.num_uninformed
        self._check_guides(golds, uninformed)
        return golds, uninformed

    def _check_guides(self, golds: int, uninformed: int) -> None:
        if min(golds, uninformed) < 0:
            raise ValueError(f"num_gold is {golds} and num_uninformed {uninformed}: give numbers ≥ 0.")
        guided = golds + uninformed
        if guided and guided >= (self.num_generations or 1):
            raise ValueError(
                f"num_gold and num_uninformed make {guided} of a group of {self.num_generations} completions: leave at "
                "least one to be sampled."
            )

    def _check_estimator(self, estimator: Estimator) -> None:
        for name in ("gamma", "lam"):
            if name in estimator.needs and not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number in [0, 1].")
        if not estimator.has_critic:
            return
        for name in ("vf_coef", "cliprange_value", "value_learning_rate"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}: give a number above 0.")
        if self.scale_rewards != "none":
            raise ValueError(
                f"scale_rewards belongs to groups: leave it out with {self.advantage_estimator!r}, which has a critic "
                "(gae has whiten_advantages)."
            )
        if self.fp16:
            raise ValueError("The value head does not train under fp16 loss scaling: use bf16, or float32.")
