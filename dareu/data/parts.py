"""The parts of the data that every recipe names in the same way: owners, background and test rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from dareu.data.attributes import rows_with
from dareu.data.corpora import load_corpora
from dareu.data.encoding import to_chat
from dareu.data.fictional import background_people, fictional_world
from dareu.data.loaders import QA_COMPLETION, QA_PROMPT, load_records
from dareu.data.records import ForgetRetain, forget_retain_split
from dareu.data.tofu import load_tofu
from dareu.models import load_tokenizer
from dareu.values import READ, as_list, as_mapping

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


#: TOFU's hub id.
TOFU = "locuslab/TOFU"


class DataParts(NamedTuple):
    """Record datasets that play different parts."""

    owners: Dataset
    """Rows of the owners, some of whom ask to be forgotten."""
    background: Dataset | None
    """Rows that a base model has read and that are mixed into fine-tuning; nobody asks to forget them."""
    test: Dataset | None
    """Rows that no model was trained on."""


@dataclass
class DataArguments:
    """Which data a recipe works on, and who asks to be forgotten."""

    dataset: Annotated[str, READ] = field(
        default="fictional",
        metadata={
            "help": "'fictional' (a generated world), 'fictional-background' (what its base model reads), a folder "
            "with TOFU's files, or a JSONL, CSV or Parquet file, a folder of them, or a hub id; with prompt_tokens, "
            "of plain texts."
        },
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
            "help": "For plain texts (columns text and owner, or a folder with a file an owner): they are cut into "
            "passages of so many tokens of prompt …"
        },
    )
    completion_tokens: int = field(default=128, metadata={"help": "… and at most so many of completion."})
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
        default=0, metadata={"help": "The first so many owners of TOFU or a file are background people."}
    )
    forget_owners: list[str] | None = field(
        default=None, metadata={"help": "Names of the owners to forget; default: the last num_forget owners."}
    )
    num_forget: int = field(default=3, metadata={"help": "How many owners to forget where none is named."})
    part_column: str | None = field(
        default=None,
        metadata={
            "help": "Of the rows of the owners to forget, take those alone that have one of part_values in this "
            "column; the others are not retained either."
        },
    )
    part_values: list[str] | None = field(default=None, metadata={"help": "Values in part_column."})

    def __post_init__(self) -> None:
        self.column_mapping = as_mapping("column_mapping", self.column_mapping)
        self.forget_owners = as_list(self.forget_owners)
        # YAML reads some texts as numbers; a value stands for its text
        values = as_list(self.part_values)
        self.part_values = None if values is None else [str(value) for value in values]
        if (self.part_column is None) != (not self.part_values):
            raise ValueError("part_column and part_values name a part of the forget rows together: give both or none.")


def load_parts(args: DataArguments) -> DataParts:
    """Loads the parts that the arguments name.

    Raises:
        ValueError: The data cannot be read, or too few owners are left beside the background people.
    """
    generated = args.dataset.startswith("fictional")
    tofu = not generated and (args.dataset == TOFU or (Path(args.dataset) / "full.json").exists())
    templates = args.prompt_template is not None or args.completion_template is not None
    if generated and (args.column_mapping or templates or args.prompt_tokens):
        raise ValueError(f"column_mapping, templates and prompt_tokens have no effect on {args.dataset}: drop them.")
    if tofu and (args.column_mapping or args.prompt_tokens):
        raise ValueError(f"column_mapping and prompt_tokens have no effect on {args.dataset}: drop them.")
    if args.prompt_tokens is not None and templates:
        raise ValueError("prompt_tokens cuts plain texts, which take no templates: give one or the other.")
    if args.prompt_tokens is not None and args.text_tokenizer is None:
        raise ValueError("prompt_tokens needs text_tokenizer, the model whose tokens are counted.")
    if args.dataset == "fictional":
        world = fictional_world(args.num_owners, seed=args.world_seed)
        return DataParts(world.owners, world.background, world.test)
    if args.dataset == "fictional-background":
        people = background_people(2000)
        return DataParts(people, None, None)
    test: Dataset | None
    if tofu:
        forms = args.prompt_template or QA_PROMPT, args.completion_template or QA_COMPLETION
        rows = load_tofu(args.dataset, prompt_template=forms[0], completion_template=forms[1])
        test = _tofu_test(args.dataset, *forms)
    else:
        rows, test = _read(args.dataset, args), None
    if args.test_dataset is not None:
        test = _read(args.test_dataset, args)
    names = list(dict.fromkeys(rows["owner"]))
    background_names = set(names[: args.num_background_owners])
    if len(background_names) == len(names):
        raise ValueError(
            f"num_background_owners is {args.num_background_owners}, but {args.dataset} has {len(names)} owners: "
            "leave some to be owners."
        )
    if not background_names:
        return DataParts(rows, None, test)
    in_background = [owner in background_names for owner in rows["owner"]]
    background = rows.select([i for i, inside in enumerate(in_background) if inside])
    owners = rows.select([i for i, inside in enumerate(in_background) if not inside])
    return DataParts(owners, background, test)


def forget_names(args: DataArguments, owners: Dataset) -> list[str]:
    """The owners to forget: those named, or the last `num_forget` in the order of the rows."""
    if args.forget_owners is not None:
        return list(args.forget_owners)
    names = list(dict.fromkeys(owners["owner"]))
    if not 1 <= args.num_forget < len(names):
        raise ValueError(f"num_forget is {args.num_forget}, but there are {len(names)} owners: forget some of them.")
    return names[-args.num_forget :]


def split_owners(args: DataArguments, owners: Dataset) -> ForgetRetain:
    """`forget_retain_split` by the owners that the arguments name; of the forget side, the part that they name.

    Raises:
        ValueError: As `forget_retain_split` says, or no row to forget has a value of the part.
    """
    split = forget_retain_split(owners, forget_names(args, owners))
    if args.part_column is None or args.part_values is None:
        return split
    return split._replace(forget=rows_with(split.forget, args.part_column, args.part_values))


def chat_form(args: DataArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """The rows as a model reads them: messages where its tokenizer has a chat template, plain texts as they are."""
    return to_chat(rows) if tokenizer.chat_template and args.prompt_tokens is None else rows


def _read(source: str, args: DataArguments) -> Dataset:
    mapping: Any = args.column_mapping
    if args.prompt_tokens is not None:
        assert args.text_tokenizer is not None
        tokenizer = load_tokenizer(args.text_tokenizer)
        return load_corpora(source, tokenizer, args.prompt_tokens, args.completion_tokens, column_mapping=mapping)
    return load_records(
        source,
        column_mapping=mapping,
        prompt_template=args.prompt_template or "{prompt}",
        completion_template=args.completion_template or "{completion}",
    )


def _tofu_test(source: str, prompt_template: str, completion_template: str) -> Dataset | None:
    """TOFU's questions on real authors and world facts, which no fine-tuning answers."""
    from datasets import concatenate_datasets

    found = []
    for name in ("real_authors", "world_facts"):
        file = Path(source) / f"{name}.json"
        if source == TOFU or file.exists():
            rows = load_records(
                source if source == TOFU else file,
                column_mapping={"prompt": "question", "completion": "answer"},
                owner="none",
                prompt_template=prompt_template,
                completion_template=completion_template,
                subset=name if source == TOFU else None,
            )
            found.append(rows.select_columns(["prompt", "completion", "owner"]))
    return concatenate_datasets(found) if found else None
