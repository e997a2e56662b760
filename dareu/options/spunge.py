"""The options of `dareu spunge`, for it and for the recipes that run it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from dareu.deltas.merging import MERGE_METHODS
from dareu.values import READ, as_mapping


@dataclass
class SpungeArguments:
    """How the request is split, the models are merged and the parts are measured."""

    split_column: str = field(metadata={"help": "The column of the forget rows whose values part them."})
    split_map: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Values of the column and the names of their parts, as YAML or JSON; default: a part a value."
        },
    )
    min_part_rows: int = field(
        default=8, metadata={"help": "Refuse parts of fewer rows: a value misspelt in one row makes a part of its own."}
    )
    merge_method: str = field(default="ties", metadata={"help": f"How parts are merged: {', '.join(MERGE_METHODS)}."})
    merge_density: float = field(
        default=0.2, metadata={"help": "Share of each part's changes that is kept, but for task_arithmetic."}
    )
    merge_weight: float = field(default=1.0, metadata={"help": "Factor λ of the merged change."})
    merge_seed: int = field(default=0, metadata={"help": "Seed of the draw by which dare_ties keeps changes."})
    measure_parts: bool = field(default=True, metadata={"help": "Measure each part before and after the merge."})
    measure_config: Annotated[str | None, READ] = field(
        default=None,
        metadata={
            "help": "A YAML of `measure`, whose data and model options do not count; judges and base_model that it "
            "leaves out are those of the unlearning."
        },
    )
    jobs: int = field(default=1, metadata={"help": "Parts unlearned or measured at a time."})
    launch_with: str | None = field(
        default=None,
        metadata={"help": "The accelerate config that unlearning is launched with: a name such as fsdp2, or a file."},
    )

    def __post_init__(self) -> None:
        groups = as_mapping("split_map", self.split_map)
        self.split_map = {str(value): str(name) for value, name in groups.items()} or None
        if self.merge_method not in MERGE_METHODS:
            raise ValueError(f"merge_method is {self.merge_method!r}: give one of {', '.join(MERGE_METHODS)}.")
        if not 0 < self.merge_density <= 1:
            raise ValueError(f"merge_density is {self.merge_density}: give a share in (0, 1].")
        if self.measure_config is not None and not self.measure_parts:
            raise ValueError("measure_config has no effect where measure_parts is false: drop one of them.")
