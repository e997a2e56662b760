"""Fine-tunes the target, the retrained control, or a base model from scratch.

    dareu finetune --dataset fictional --output_dir runs/target
    dareu finetune --dataset fictional --output_dir runs/retrained --exclude_owners "Lucia Duval"

The model is saved in OUTPUT_DIR/model. Background rows, where the data has them, are mixed in: without them a small
model forgets how to copy the name it was asked about.
"""

import logging
import sys
from typing import Any

from transformers import AutoModelForCausalLM, set_seed

from dareu.data import CompletionCollator, encode_dataset
from dareu.data.parts import DataArguments, chat_form, load_parts
from dareu.models import context_length, load_model, load_tokenizer, new_llama, new_tokenizer, save_model
from dareu.models.generation import list_end_ids
from dareu.options.finetune import FinetuneArguments
from dareu.options.parsing import OptionParser
from dareu.runs import config_of, inputs_of, open_run, write_results
from dareu.runs.metrics_log import MetricsLog
from dareu.runs.program import run_program
from dareu.trainers.checkpoints import last_checkpoint
from dareu.trainers.finetune import FinetuneConfig, FinetuneTrainer
from dareu.trainers.processes import check_launch, check_started, gathered_weights, load_whole_weights
from dareu.trainers.trackers import TRACKING

logger = logging.getLogger("dareu.finetune")


def main() -> None:
    parser = OptionParser((DataArguments, FinetuneArguments, FinetuneConfig))
    data, args, training = parser.parse_args_and_config()
    config = config_of(data, args, training)
    check_launch(training, masked=False)
    load_whole_weights()
    set_seed(training.seed)
    training.disable_tqdm = training.disable_tqdm or not sys.stderr.isatty()

    # Rows
    parts = load_parts(data)
    rows = parts.owners
    if args.train_on == "background":
        if parts.background is None:
            raise ValueError(f"{data.dataset} has no background rows: set num_background_owners.")
        rows = parts.background

    # Model
    model: Any
    if args.model_name_or_path == "from-scratch":
        if len(rows) and not isinstance(rows[0]["prompt"], str):
            raise ValueError("A model from scratch has no chat template, and the rows are messages: give plain texts.")
        texts = [prompt + completion for prompt, completion in zip(rows["prompt"], rows["completion"], strict=True)]
        tokenizer = new_tokenizer(texts, args.vocab_size)
        shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        model = new_llama(
            tokenizer,
            seed=training.seed,
            max_position_embeddings=args.max_position_embeddings,
            **{name: getattr(args, name) for name in shape},
        )
    else:
        tokenizer = load_tokenizer(args.model_name_or_path, pad_token=data.pad_token)
        model = load_model(args.model_name_or_path)
        list_end_ids(model, tokenizer)

    # Mix
    limit = context_length(model)
    records = encode_dataset(chat_form(data, rows, tokenizer), tokenizer, max_length=limit)
    if args.train_on == "owners" and parts.background is not None and args.background_share > 0:
        background = encode_dataset(chat_form(data, parts.background, tokenizer), tokenizer, max_length=limit)
        wanted = len(background) * (1 - args.background_share) / args.background_share
        records = records * max(1, round(wanted / len(records))) + background
    # Everything that can be wrong was looked at before anything is written
    with training.main_process_first(local=False, desc="opening the run"):
        alone = training.process_index == 0
        run = open_run(training.output_dir, config, inputs_of(data, args), free=TRACKING, alone=alone)
    if run.done:
        if training.process_index == 0:
            print(f"{run.folder} is done: delete it to run again.")
        return
    logger.info("%d parameters, %d rows an epoch", sum(p.numel() for p in model.parameters()), len(records))

    training.remove_unused_columns = False
    trainer = FinetuneTrainer(
        model=model,
        args=training,
        train_dataset=records,
        data_collator=CompletionCollator(tokenizer),
        processing_class=tokenizer,
        callbacks=[MetricsLog(run.metrics_path)],
    )
    check_started(trainer.accelerator)
    trainer.train(resume_from_checkpoint=last_checkpoint(run.folder))
    weights = gathered_weights(trainer)  # by all processes together; from here on the main one works alone
    if trainer.is_world_process_zero():
        if weights is not None:
            load_whole_weights()
            generation_config, model = model.generation_config, AutoModelForCausalLM.from_config(model.config)
            model.load_state_dict(weights)
            model.generation_config = generation_config
        save_model(model, tokenizer, run.folder / "model")
        method = "retrained" if data.exclude_owners else "target" if args.train_on == "owners" else "base"
        model_path = str(run.folder / "model")
        write_results(
            run.results_path,
            [
                {
                    "method": method,
                    "mask": None,
                    "seed": training.seed,
                    "model": model_path,
                    "metrics": {},
                    "seconds": None,
                    "peak_memory_bytes": None,
                }
            ],
        )
        run.mark_done()
        print(f"The model is in {model_path}.")


if __name__ == "__main__":
    run_program(main, "finetune")
