"""The options by which every recipe names its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from dareu.values import READ, Reads, as_mapping, as_names


def _generated() -> list[str]:
    from dareu.data.parts import generated  # which imports this module

    return generated()


@dataclass
class DataArguments:
    """Which data a recipe works on, and who asks to be forgotten."""

    dataset: Annotated[str, Reads(plugin=True, words=_generated)] = field(
        default="fictional",
        metadata={
            "help": "'fictional' (a generated world), 'fictional-background' (what its base model reads), a folder "
            "with TOFU's files, or a JSON, CSV or Parquet file, a folder of them, or a hub id; with prompt_tokens, "
            "of plain texts, which may be text files; or a loader of your own as pkg.mod:Name or path/to/file.py:Name."
        },
    )
    dataset_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict, metadata={"help": "Options of the loader, as YAML or JSON."}
    )
    num_owners: int = field(default=16, metadata={"help": "Owners in the fictional world."})
    world_seed: int = field(default=0, metadata={"help": "Seed of the fictional world."})
    column_mapping: dict[str, str] | str | None = field(
        default=None,
        metadata={"help": "Our column names (prompt, completion, owner, …) to those of the data, as YAML or JSON."},
    )
    prompt_template: str | None = field(
        default=None,
        metadata={"help": "Text around every prompt, with {prompt}; default: TOFU's 'Question: … Answer:', or none."},
    )
    completion_template: str | None = field(
        default=None, metadata={"help": "Text around every completion, with {completion}; default: as for the prompt."}
    )
    prompt_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Plain texts (columns text and owner, or a folder with a file an owner) are cut into "
            "passages, each with so many tokens of prompt."
        },
    )
    completion_tokens: int = field(
        default=128, metadata={"help": "Most tokens of completion in a passage of plain text."}
    )
    text_tokenizer: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "The model folder or hub id whose tokens are counted in plain texts."}
    )
    pad_token: str | None = field(
        default=None,
        metadata={"help": "The token that pads, for a tokenizer that names none; its end token will do."},
    )
    test_dataset: Annotated[str | None, READ] = field(
        default=None, metadata={"help": "A file of rows that no model was trained on, read like the dataset."}
    )
    num_background_owners: int = field(
        default=0, metadata={"help": "The first so many owners are background people, where the data has none."}
    )
    forget_owners: list[str] | None = field(
        default=None, metadata={"help": "Names of the owners to forget; default: the last num_forget owners."}
    )
    exclude_owners: list[str] | None = field(
        default=None,
        metadata={
            "help": "Owners whose rows are left out altogether: for the retrained control those to forget, for a "
            "further request those who are forgotten already."
        },
    )
    num_forget: int = field(default=3, metadata={"help": "How many owners to forget where none is named."})
    part_column: str | None = field(
        default=None,
        metadata={
            "help": "The column that parts the rows to forget: those alone are taken that have one of part_values in "
            "it; the others are not retained either."
        },
    )
    part_values: list[str] | None = field(
        default=None, metadata={"help": "Values of part_column; rows with one of them are taken."}
    )

    def __post_init__(self) -> None:
        self.dataset_kwargs = as_mapping("dataset_kwargs", self.dataset_kwargs)
        self.column_mapping = as_mapping("column_mapping", self.column_mapping)
        for pair in self.column_mapping.items():
            if not all(isinstance(name, str) for name in pair):
                raise ValueError(f"column_mapping holds {pair[0]!r}: {pair[1]!r}: put names of columns in quotes.")
        self.forget_owners = as_names("forget_owners", self.forget_owners)
        self.exclude_owners = as_names("exclude_owners", self.exclude_owners)
        # YAML reads some texts as numbers; a value stands for its text
        values = [self.part_values] if isinstance(self.part_values, str | int | float) else self.part_values
        self.part_values = None if values is None else [str(value) for value in values]
        if (self.part_column is None) != (not self.part_values):
            raise ValueError("part_column and part_values name a part of the forget rows together: give both or none.")
