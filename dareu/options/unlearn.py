"""The options of `dareu unlearn`, for it and for the recipes that run it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from trl import TrlParser

from dareu.data.parts import DataArguments
from dareu.data.refusals import load_refusals
from dareu.methods import METHODS, Method
from dareu.trainers import UnlearnTrainer
from dareu.values import READ


@dataclass
class MethodArguments:
    """The method, which decides what other options there are."""

    method: Annotated[str, READ] = field(
        default="dareu",
        metadata={"help": f"{', '.join(METHODS)}, or a Method of your own as pkg.mod:Name or path/to/file.py:Name."},
    )


@dataclass
class PolicyArguments:
    """The model that is trained, and whether through LoRA; the names are those of TRL's `ModelConfig`."""

    model_name_or_path: Annotated[str, READ] = field(
        metadata={"help": "The target: a model or adapter folder, or a hub id."}
    )
    dtype: str = field(
        default="float32",
        metadata={
            "help": "Of the weights: 'float32', or 'bfloat16' with LoRA or under a mask, whose entries are then "
            "trained in float32 copies. Computing in bfloat16 is another matter (bf16)."
        },
    )
    use_peft: bool = field(
        default=False, metadata={"help": "Train a fresh LoRA adapter; a target that is an adapter is merged first."}
    )
    continue_adapter: bool = field(default=False, metadata={"help": "The target is an adapter: train on that one."})
    merge_adapter: bool = field(
        default=True, metadata={"help": "Save the model with the adapter merged into it; otherwise the adapter alone."}
    )
    lora_r: int = field(default=8, metadata={"help": "Rank (the DareU paper's)."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale (the DareU paper's)."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapter."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["all-linear"], metadata={"help": "Modules that get an adapter."}
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


@dataclass
class UnlearnArguments:
    """What restrains and judges the unlearning."""

    mask: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "A mask.safetensors made for this model; default: dense."}
    )
    validation_judge: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "A classifier folder; with validation_steps it decides when to stop."}
    )
    base_model: Annotated[str | None, READ] = field(
        default=None,
        metadata={"help": "The checkpoint the target was fine-tuned from, which judges fluency; loaded in dtype."},
    )
    stop_at_base_level: bool = field(
        default=False,
        metadata={"help": "Stop once the validation judge finds the owners no more than in the base model's answers."},
    )
    test_judge: str | None = field(
        default=None,
        metadata={"help": "The classifier kept for the final report; named here it is an error elsewhere."},
    )


@dataclass
class RewardArguments:
    """The rewards of DareU."""

    classifier: Annotated[str, READ] = field(
        default="",
        metadata={"help": "A classifier folder, or a plug-in as pkg.mod:Name or path/to/file.py:Name."},
    )
    classifier_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict, metadata={"help": "Arguments of a plug-in classifier, as YAML or JSON."}
    )
    slice_transform: str = field(default="log", metadata={"help": "Attribution to score: 'log' (χ) or 'linear'."})
    hide_echo: bool = field(
        default=True, metadata={"help": "Hide the prompt's words in completions from the classifier."}
    )
    scored_owners: str = field(
        default="all",
        metadata={"help": "Score 'all' owners to forget together, or a row's 'own' alone as in the paper."},
    )
    fluency_coef: float = field(
        default=1.0,
        metadata={"help": "Weight of the fluency reward beside the de-attribution reward; 0: none."},
    )
    fluency_quantile: float = field(
        default=0.9,
        metadata={"help": "Share of the retained answers that are fluent enough to cost nothing."},
    )
    fluency_width: float = field(
        default=1.0, metadata={"help": "Nats a token beyond the bound at which the fluency penalty is full."}
    )


def unlearn_parser(method: Method, *more: type[Any]) -> TrlParser:
    """Parses the options that `dareu unlearn` has for a method, and those of more dataclasses.

    The method's usual settings are the defaults. The dataclasses come in the order MethodArguments, DataArguments,
    UnlearnArguments, PolicyArguments, the method's config, RewardArguments where the forget signal is a reward, and the
    others.

    Raises:
        ValueError: The method's `defaults` name options that it does not have.
    """
    parts = [MethodArguments, DataArguments, UnlearnArguments, PolicyArguments, method.config]
    if method.loss is None:
        parts.append(RewardArguments)
    parser = TrlParser([*parts, *more])
    if unknown := parser.set_defaults_with_config(**method.defaults):  # a config file and the command line go first
        raise ValueError(f"The method's defaults name options that it does not have: {' '.join(unknown)}.")
    return parser


def check_unlearning(
    method: Method, unlearning: UnlearnArguments, training: Any, rewarding: RewardArguments | None
) -> None:
    """Refuses options that do not go together, as far as can be told without model and data.

    Raises:
        ValueError: In one sentence.
    """
    if unlearning.stop_at_base_level:
        if training.stop_forget_attribution is not None:
            raise ValueError("stop_at_base_level and stop_forget_attribution exclude each other: give one.")
        training.stop_forget_attribution = 0.0  # a stand-in: it is measured once the base model is there
    training.check()
    if unlearning.stop_at_base_level:
        if not (unlearning.validation_judge and unlearning.base_model and training.validation_steps):
            raise ValueError("stop_at_base_level needs validation_judge, base_model and validation_steps.")
        training.stop_forget_attribution = None
    if training.stop_fluency_nll is not None and unlearning.base_model is None:
        raise ValueError("stop_fluency_nll needs base_model, under which answers are fluent or not.")
    if method.loss is not None and issubclass(method.trainer, UnlearnTrainer):
        method.trainer.check_options(method.loss, training)
        if training.refusals is not None:
            load_refusals(training.refusals)
    if rewarding is not None and not rewarding.classifier:
        raise ValueError("classifier is missing: name the folder of the reward classifier.")
    named = [unlearning.test_judge, unlearning.validation_judge, None if rewarding is None else rewarding.classifier]
    judges = [Path(judge).resolve() for judge in named if judge]
    if len(set(judges)) < len(judges):
        raise ValueError("The classifier, the validation judge and the test judge must be three: each has one job.")
