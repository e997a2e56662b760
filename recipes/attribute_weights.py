"""Scores every weight by WAGLE and keeps the top density as a mask; or draws the random control.

    dareu attribute_weights --model_name_or_path runs/target/model --density 0.2 --output_dir runs/mask

The mask is saved as OUTPUT_DIR/mask.safetensors.
"""

import logging
import math
import sys
from dataclasses import dataclass, field

import numpy as np
from accelerate import PartialState
from rich.console import Console
from rich.table import Table
from trl import TrlParser

from dareu.data import CompletionCollator, encode_dataset
from dareu.data.parts import DataArguments, chat_form, load_parts, split_owners
from dareu.masks import WeightMask, fingerprint, random_mask, select_top, wagle_scores
from dareu.models import context_length, load_model, load_tokenizer
from dareu.runs import config_of, open_run


@dataclass
class MaskArguments:
    """Which mask is made, of which model."""

    model_name_or_path: str = field(metadata={"help": "The target model."})
    output_dir: str = field(metadata={"help": "The run's folder."})
    score: str = field(default="wagle", metadata={"help": "'wagle', or 'random' for the control."})
    density: float = field(default=0.2, metadata={"help": "Share of the weights that may move, in (0, 1]."})
    gamma: str = field(
        default="auto",
        metadata={"help": "WAGLE's stand-in for the retain loss's Hessian: a number ≥ 0, 'inf', or 'auto'."},
    )
    batch_size: int = field(default=16, metadata={"help": "Records a backward pass; the scores do not depend on it."})
    seed: int = field(default=0, metadata={"help": "Of the retained records, or of the random mask."})

    def __post_init__(self) -> None:
        if self.score not in ("wagle", "random"):
            raise ValueError(f"score is {self.score!r}: give 'wagle' or 'random'.")
        if not 0 < self.density <= 1:
            raise ValueError(f"density is {self.density}: give a share in (0, 1].")
        if self.gamma != "auto":
            try:
                number = float(self.gamma)
            except ValueError:
                number = math.nan
            if not number >= 0:
                raise ValueError(f"gamma is {self.gamma!r}: give a number ≥ 0, 'inf' or 'auto'.")


def main() -> None:
    data, args = TrlParser((DataArguments, MaskArguments)).parse_args_and_config()
    tokenizer = load_tokenizer(args.model_name_or_path, pad_token=data.pad_token)
    model = load_model(args.model_name_or_path).to(PartialState().device)
    forget, retain = split_owners(data, load_parts(data).owners)

    # The whole forget set once, and as many retained records, drawn without replacement.
    drawn = np.random.default_rng(args.seed).permutation(len(retain))[: len(forget)]
    collate, size = CompletionCollator(tokenizer), args.batch_size
    batches = []
    for side in (forget, retain.select(sorted(drawn.tolist()))):
        records = encode_dataset(chat_form(data, side, tokenizer), tokenizer, max_length=context_length(model))
        batches.append([collate(records[start : start + size]) for start in range(0, len(records), size)])

    # Everything that can be wrong was looked at before anything is written
    run = open_run(args.output_dir, config_of(data, args), {"model": args.model_name_or_path, "dataset": data.dataset})
    if run.done:
        print(f"{run.folder} is done: delete it to run again.")
        return
    gamma = None
    if args.score == "random":
        masks = random_mask(model, args.density, args.seed)
    else:
        scores = wagle_scores(model, *batches, gamma="auto" if args.gamma == "auto" else float(args.gamma))
        gamma = scores.gamma
        masks = select_top(scores, args.density)
    mask = WeightMask(masks, args.density, args.score, fingerprint(model), gamma)
    mask.save(run.folder / "mask.safetensors")
    run.mark_done()

    table = Table("weights", "selected", "share", title=f"{args.score} mask")
    for name, tensor in mask.items():
        table.add_row(name, f"{int(tensor.sum())}", f"{tensor.float().mean():.3f}")
    table.add_row("all", f"{mask.count}", f"{mask.count / mask.total:.3f}")
    Console().print(table)
    print(f"The mask is in {run.folder / 'mask.safetensors'}." + (f" gamma = {gamma:.3g}" if gamma is not None else ""))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except ValueError as error:
        sys.exit(f"attribute_weights: {error}")
