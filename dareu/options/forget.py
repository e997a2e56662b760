"""The options of `dareu forget` beside those of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from dareu.data.parts import DataArguments
from dareu.methods import METHODS, find_method
from dareu.options.judges import check_judges
from dareu.requests.auditing import AUDIT_LEVELS
from dareu.requests.sizing import WAYS
from dareu.values import PLUGIN, READ, as_mapping

#: What the stages are told by the request, and nobody else.
_OWN = (
    *(option.name for option in fields(DataArguments)),
    *("method", "model_name_or_path", "base_model", "classifier", "validation_judge", "test_judge", "reward_judge"),
    *("mask", "output_dir", "output", "seed", "learning_rate", "max_steps", "target", "retrained"),
)


@dataclass
class ForgetArguments:
    """From which model, how, and what is made of it."""

    model_name_or_path: Annotated[str, READ] = field(
        metadata={"help": "The model that knows the owners: a folder, an adapter's folder or a hub id."}
    )
    output_dir: str = field(metadata={"help": "The request's folder: model, patch, page, ledger and all stages."})
    base_model: Annotated[str | None, READ] = field(
        default=None,
        metadata={"help": "The checkpoint that the model was fine-tuned from; without it everything is weaker."},
    )
    method: Annotated[str, PLUGIN] = field(
        default="dareu",
        metadata={"help": f"{', '.join(METHODS)}, or a Method of your own as pkg.mod:Name or path/to/file.py:Name."},
    )
    weights: str = field(
        default="auto",
        metadata={
            "help": "Which weights move: 'all', 'mask' (those that WAGLE selects), 'lora', or 'auto': the first of "
            "these that the memory has room for."
        },
    )
    density: float = field(default=0.2, metadata={"help": "Share of the weights that a mask leaves free, in (0, 1]."})
    learning_rate: str = field(
        default="auto",
        metadata={"help": "A number, or 'auto': the best of three short trials on the rows to forget and validation."},
    )
    max_steps: int = field(default=60, metadata={"help": "Most updates; a third of them in each trial."})
    unlearn_kwargs: dict[str, Any] | str | None = field(
        default_factory=dict,
        metadata={"help": "Options of `dareu unlearn` over those that are set for you, as YAML or JSON."},
    )
    measure_kwargs: dict[str, Any] | str | None = field(
        default_factory=dict, metadata={"help": "The same of `dareu measure`: {num_samples: 0}."}
    )
    retrained: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "A model retrained without the owners, to read the result beside."}
    )
    classifier: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The folder of the reward's classifier; default: one is trained."}
    )
    validation_judge: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The folder of the judge that chooses and stops; default: one is trained."}
    )
    test_judge: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The folder of the judge of the report; default: one is trained."}
    )
    audit: str = field(
        default="quick",
        metadata={"help": "Attacks on what was forgotten: 'quick', 'full' (every one of `dareu audit`) or 'none'."},
    )
    audit_kwargs: dict[str, Any] | str | None = field(
        default_factory=dict, metadata={"help": "Options of `dareu audit`, as YAML or JSON."}
    )
    ledger: str | None = field(
        default=None,
        metadata={"help": "The requests.jsonl of earlier requests; default: the one beside the model's folder."},
    )
    again: bool = field(
        default=False,
        metadata={"help": "Forget anew also whom an earlier request has forgotten, as one who came back."},
    )
    stages_dir: str | None = field(
        default=None,
        metadata={"help": "The folder in which stages are kept and found again; default: OUTPUT_DIR/stages."},
    )
    jobs: int = field(default=1, metadata={"help": "Stages run at a time, each with OMP_NUM_THREADS or one thread."})
    seed: int = field(default=0, metadata={"help": "Seed of every stage."})
    use_cpu: bool = field(default=False, metadata={"help": "Train on the CPU, also where there is a GPU."})
    plan: bool = field(default=False, metadata={"help": "Print what would be done and what it takes; do nothing."})
    name_owners: bool = field(
        default=False, metadata={"help": "Name the forgotten owners in the model card, which counts them otherwise."}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Upload the model's folder to the hub at the end."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Its name there; default: OUTPUT_DIR's."})
    hub_private_repo: bool = field(default=False, metadata={"help": "Make the repository private."})

    def __post_init__(self) -> None:
        find_method(self.method)
        for name in ("unlearn_kwargs", "measure_kwargs", "audit_kwargs"):
            options = as_mapping(name, getattr(self, name))
            setattr(self, name, options)
            if own := [option for option in options if option in _OWN]:
                raise ValueError(f"{name} sets {own[0]}, which the request itself sets: leave it out.")
        for name, known in (("weights", ("auto", *WAYS)), ("audit", AUDIT_LEVELS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}: give one of {', '.join(known)}.")
        if not 0 < self.density <= 1:
            raise ValueError(f"density is {self.density}: give a share in (0, 1].")
        self.learning_rate = str(self.learning_rate)
        self.rate()
        for name, least in (("max_steps", 1), ("jobs", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: give a whole number of at least {least}.")
        for name in ("classifier", "validation_judge", "test_judge"):
            judge = getattr(self, name)
            if judge is not None and not Path(judge).is_dir():
                raise ValueError(f"{name} is {judge}, which is no folder: a judge is loaded from one.")
        check_judges(classifier=self.classifier, validation_judge=self.validation_judge, test_judge=self.test_judge)
        if not self.push_to_hub and (self.hub_model_id is not None or self.hub_private_repo):
            raise ValueError("hub_model_id and hub_private_repo say where push_to_hub uploads to: give that too.")

    def rate(self) -> float | None:
        """The learning rate, None where trials choose it."""
        if self.learning_rate == "auto":
            return None
        try:
            rate = float(self.learning_rate)
        except ValueError:
            rate = math.nan
        if not 0 < rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate!r}: give a number above 0, or 'auto'.")
        return rate
