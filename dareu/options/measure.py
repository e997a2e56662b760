"""The options of `dareu measure`, for it and for the recipes that run it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from dareu.values import READ


@dataclass
class MeasureArguments:
    """Which model is measured, and who judges."""

    model_name_or_path: Annotated[str, READ] = field(metadata={"help": "The model folder."})
    reward_judge: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The classifier folder the reward came from."}
    )
    test_judge: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "A classifier folder of another family, used for nothing else."}
    )
    validation_judge: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The classifier folder that decided when to stop; for choosing settings."}
    )
    base_model: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The checkpoint before fine-tuning: fluency."}
    )
    retrained: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "measurement.json of the retrained control; gives ToW."}
    )
    max_rows: int | None = field(
        default=None, metadata={"help": "Measure at most so many retained and test rows, evenly spread."}
    )
    fold: str | None = field(
        default=None,
        metadata={"help": "Measure a part of each owner's rows, '0/2' for the first of two; default: all."},
    )
    max_new_tokens: int = field(default=200, metadata={"help": "Tokens of the longest answer."})
    measure_batch_size: int = field(default=64, metadata={"help": "Rows at a time; the results do not depend on it."})
    output: str | None = field(default=None, metadata={"help": "Where to write; default: beside the model folder."})
