"""Scores every weight by WAGLE, a control or a score of your own, and keeps the top density as a mask.

    dareu attribute_weights --model_name_or_path runs/target/model --density 0.2 --output_dir runs/mask

The mask is saved as OUTPUT_DIR/mask.safetensors; those of several densities as mask-0.05.safetensors and the like.
Several processes (--accelerate_config ddp or fsdp2) share the records, and the main one writes.
"""

from pathlib import Path
from typing import cast

import numpy as np
from accelerate import Accelerator
from rich.table import Table

from dareu.console import plain_console
from dareu.data import CompletionCollator, encode_dataset
from dareu.data.parts import DataArguments, chat_form, load_parts, split_owners
from dareu.masks import Scope, WeightMask, chosen_parameters, find_score, score_weights, weight_masks
from dareu.masks.gradients import AccumulateOn, check_floating_point
from dareu.models import context_length, load_model, load_tokenizer
from dareu.options.attribute_weights import MaskArguments
from dareu.options.parsing import OptionParser
from dareu.runs import config_of, inputs_of, open_run
from dareu.runs.program import run_program
from dareu.trainers.processes import check_scoring_launch, check_started, is_sharded, place_frozen


def main() -> None:
    data, args = OptionParser((DataArguments, MaskArguments)).parse_args_and_config()
    check_scoring_launch()
    accelerator = Accelerator(cpu=args.use_cpu)
    check_started(accelerator)
    if is_sharded(accelerator):
        if not find_score(args.score, args.score_kwargs).shards:
            raise ValueError(f"Under FSDP2 there is no score={args.score}: use DDP or one process.")
        if args.accumulate_on == "disk":
            raise ValueError("Under FSDP2 there is no accumulate_on=disk: use DDP or one process.")
    tokenizer = load_tokenizer(args.model_name_or_path, pad_token=data.pad_token)
    model = load_model(args.model_name_or_path)
    forget, retain = split_owners(data, load_parts(data).owners)

    # The whole forget set once, and as many retained records, drawn without replacement.
    drawn = np.random.default_rng(args.seed).permutation(len(retain))[: len(forget)]
    collate, size = CompletionCollator(tokenizer), args.batch_size
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    batches = []
    for side in (forget, retain.select(sorted(drawn.tolist()))):
        records = encode_dataset(chat_form(data, side, tokenizer), tokenizer, max_length=context_length(model))[share]
        batches.append([collate(records[start : start + size]) for start in range(0, len(records), size)])

    check_floating_point(chosen_parameters(model, args.include, args.exclude))

    # Everything that can be wrong was looked at before anything is written
    with accelerator.main_process_first():
        alone = accelerator.is_main_process
        run = open_run(args.output_dir, config_of(data, args), inputs_of(data, args), alone=alone)
    if run.done:
        accelerator.print(f"{run.folder} is done: delete it to run again.")
        return
    placed = place_frozen(model, accelerator)  # it is not trained here
    scores = score_weights(
        placed,
        args.score,
        *batches,
        gamma="auto" if args.gamma == "auto" else float(args.gamma),
        seed=args.seed,
        include=args.include,
        exclude=args.exclude,
        accumulate_on=cast(AccumulateOn, args.accumulate_on),
        folder=run.folder,
        options=args.score_kwargs,
    )
    for mask in weight_masks(placed, scores, args.density, cast(Scope, args.scope)):  # by all processes together
        if not accelerator.is_main_process:
            continue
        name = "mask" if len(args.density) == 1 else f"mask-{mask.density}"
        path = run.folder / f"{name}.safetensors"
        mask.save(path)
        show(mask, path)
    if accelerator.is_main_process:
        run.mark_done()


def show(mask: WeightMask, path: Path) -> None:
    table = Table("weights", "selected", "share", title=f"{mask.score} mask of density {mask.density}")
    for name, tensor in mask.items():
        table.add_row(name, f"{int(tensor.sum())}", f"{tensor.float().mean():.3f}")
    table.add_row("all", f"{mask.count}", f"{mask.count / mask.total:.3f}")
    plain_console().print(table)
    print(f"The mask is in {path}." + (f" gamma = {mask.gamma:.3g}" if mask.gamma is not None else ""))


if __name__ == "__main__":
    run_program(main, "attribute_weights")
