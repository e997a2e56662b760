"""Unlearns owners from a model, by DareU or by a loss-based method, dense, masked or with LoRA.

    dareu unlearn --method dareu --model_name_or_path runs/target/model --classifier runs/classifier/classifier \
        --mask runs/mask/mask.safetensors --output_dir runs/dareu
    dareu unlearn --method npo --model_name_or_path runs/target/model --output_dir runs/npo

The model is saved in OUTPUT_DIR/model. `dareu unlearn --method npo --help` lists the options of a method.
"""

import copy
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from trl import TrlParser

from dareu.classifiers import check_classifier, load_classifier, owner_columns, strip_echo
from dareu.data import text_of
from dareu.data.parts import chat_form, forget_names, load_parts, split_owners
from dareu.files import atomic_folder
from dareu.masks import WeightMask, count_moved_outside
from dareu.methods import METHODS
from dareu.metrics import answer_nll, forget_attribution, generate_answers
from dareu.models import load_adapter, load_model, load_tokenizer, resolve_model_path
from dareu.models.adapters import adapter_base, merge_adapter
from dareu.options.unlearn import (
    MethodArguments,
    PolicyArguments,
    RewardArguments,
    check_unlearning,
    unlearn_parser,
)
from dareu.plugins import resolve
from dareu.rewards import DeattributionReward, FluencyReward
from dareu.runs import config_of, inputs_of, open_run, write_results
from dareu.runs.memory import PeakMemory
from dareu.runs.metrics_log import MetricsLog
from dareu.runs.program import run_program
from dareu.trainers.checkpoints import last_checkpoint
from dareu.trainers.processes import gathered_weights, load_whole_weights
from dareu.trainers.shared import load_policy
from dareu.trainers.stopwatch import Stopwatch
from dareu.values import as_mapping
from dareu.weights import CheckpointWeights

logger = logging.getLogger("dareu.unlearn")


def main() -> None:
    first = TrlParser((MethodArguments,))
    wants_help = "--help" in sys.argv or "-h" in sys.argv
    known = [argument for argument in sys.argv[1:] if argument not in ("--help", "-h")]
    choice = first.parse_args_and_config(known, return_remaining_strings=True, fail_with_unknown_args=False)[0]
    method = resolve(choice.method, METHODS)
    parser = unlearn_parser(method)
    if wants_help:
        parser.parse_args(["--help"])
    choice, data, args, policy_args, training, *rest = parser.parse_args_and_config()
    rewarding: RewardArguments | None = rest[0] if rest else None
    config = config_of(choice, data, args, policy_args, training, *rest)

    # Everything that can be wrong is looked at before anything is written
    check_unlearning(method, args, training, rewarding)
    load_whole_weights()
    path = policy_args.model_name_or_path
    origin = check_target(policy_args, masked=args.mask is not None)
    tokenizer, model = load_tokenizer(path, pad_token=data.pad_token), load_target(policy_args)
    parts = load_parts(data)
    split, owners = split_owners(data, parts.owners), forget_names(data, parts.owners)
    retain = split.retain
    if parts.background is not None:
        # Half of the retained rows that a method sees are background people, as in fine-tuning.
        retain = mix(retain, parts.background, training.seed)
    forget, retain = (chat_form(data, side, tokenizer) for side in (split.forget, retain))
    mask = WeightMask.load(args.mask) if args.mask is not None else None
    base, fluency = None, None
    if args.base_model is not None:
        base = load_model(args.base_model, dtype=getattr(torch, policy_args.dtype)).to(training.device)
        fluency = mean_nll(base, load_tokenizer(args.base_model, pad_token=data.pad_token))
    judge: Any = load_classifier(args.validation_judge) if args.validation_judge is not None else None
    if judge is not None:
        owner_columns(judge, owners)

    stopwatch = Stopwatch()

    @stopwatch.paused()
    def validate(policy: Any) -> dict[str, float]:
        prompts = list(forget["prompt"])
        answers = generate_answers(policy, tokenizer, prompts, max_new_tokens=longest_answer(forget, tokenizer))
        bare = [strip_echo(answer, text_of(prompt)) for answer, prompt in zip(answers, prompts, strict=True)]
        measured = {"forget_attribution": forget_attribution(judge, bare, owners)}
        if fluency is not None:
            measured["fluency_nll"] = float(fluency(prompts, as_completions(answers, prompts)).mean())
        return measured

    if args.stop_at_base_level:
        training.stop_forget_attribution = validate(base)["forget_attribution"]
        logger.info("The judge finds the owners in %.3f of the base model's answers.", training.stop_forget_attribution)
    objective: Any = method.loss
    if rewarding is not None:
        if fluency is None and rewarding.fluency_coef > 0:
            logger.warning("No base_model is given: the target judges fluency, and finds memorised text most fluent.")
            fluency = mean_nll(copy.deepcopy(model).to(training.device), tokenizer)
        objective = rewards(rewarding, owners, retain, fluency)
        if len(objective) > 1:
            if training.reward_weights is not None:
                raise ValueError("fluency_coef weighs the two rewards: leave reward_weights out.")
            training.reward_weights = [1.0, rewarding.fluency_coef]
    lora = None
    if policy_args.use_peft:
        modules = policy_args.lora_target_modules
        lora = LoraConfig(
            r=policy_args.lora_r,
            lora_alpha=policy_args.lora_alpha,
            lora_dropout=policy_args.lora_dropout,
            target_modules=modules[0] if modules == ["all-linear"] else modules,
            task_type="CAUSAL_LM",
        )

    # Train; what is computed once, such as the original's log-probabilities, counts in time and memory
    with PeakMemory(training.device) as memory, stopwatch:
        trainer = method.trainer(
            model,
            objective,
            training,
            forget,
            retain_dataset=retain,
            mask=mask,
            processing_class=tokenizer,
            peft_config=lora,
            validate=validate if judge is not None else None,
            callbacks=[],
        )
        inputs = inputs_of(choice, data, args, policy_args, training, *rest)
        with training.main_process_first(local=False, desc="opening the run"):
            run = open_run(training.output_dir, config, inputs)
        if run.done:
            if trainer.is_world_process_zero():
                print(f"{run.folder} is done: delete it to run again.")
            return
        trainer.add_callback(MetricsLog(run.metrics_path))
        trainer.stopwatch = stopwatch  # its seconds are kept in checkpoints
        trainer.train(resume_from_checkpoint=last_checkpoint(run.folder))
    weights = gathered_weights(trainer)  # by all processes together; from here on the main one works alone
    if not trainer.is_world_process_zero():
        return
    if weights is None:
        trained = trainer.accelerator.unwrap_model(trainer.model)
    else:
        load_whole_weights()
        trained = load_policy(load_target(policy_args), tokenizer, lora, training.seed)[0]
        trained.load_state_dict(weights)
    if policy_args.lora and policy_args.merge_adapter:
        trained = merge_adapter(trained)
    elif policy_args.lora:
        name = resolve_model_path(origin or path)
        # A hub id stays one; a folder is found from anywhere
        name = str(Path(name).resolve()) if Path(name).exists() else name
        trained.active_peft_config.base_model_name_or_path = name

    # Save, and compare what was frozen bit for bit
    metrics: dict[str, float] = {"updates": trainer.state.global_step}
    with atomic_folder(run.folder / "model") as folder:
        trained.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    model_path = str(run.folder / "model")
    if mask is not None:
        moved = count_moved_outside(load_target(policy_args), CheckpointWeights(model_path), mask)
        metrics["moved_outside_mask"] = moved
        print(f"{moved} of the {mask.total - mask.count:,} weights outside the mask moved, compared bit for bit.")
        if moved:
            raise RuntimeError("Weights outside the mask moved: this is a fault of dareu, please report it.")
    write_results(
        run.results_path,
        [
            {
                "method": choice.method,
                "mask": mask.score if mask is not None else None,
                "seed": training.seed,
                "model": model_path,
                "metrics": metrics,
                "seconds": stopwatch.seconds,
                "peak_memory_bytes": memory.bytes,
            }
        ],
    )
    run.mark_done()
    print(f"The model is in {model_path}; {trainer.state.global_step} updates took {stopwatch.seconds:.0f} s.")


def check_target(policy: PolicyArguments, *, masked: bool) -> str | None:
    """Refuses what cannot be trained or saved, before weights are read; the base of a target that is an adapter."""
    path = policy.model_name_or_path
    base = adapter_base(resolve_model_path(path))
    if policy.continue_adapter and base is None:
        raise ValueError(f"continue_adapter needs a target that is an adapter, which {path} is not: give use_peft.")
    if not policy.merge_adapter and policy.use_peft and base is not None:
        raise ValueError(
            f"merge_adapter=False needs a base that is saved somewhere, but the fresh adapter's is {path} merged into "
            f"{base}: leave merge_adapter out, or train on the target's own adapter with continue_adapter."
        )
    if policy.dtype == "bfloat16" and not masked and not policy.lora:
        raise ValueError(
            "dtype=bfloat16 loses small updates of all weights: train under a mask or with LoRA, or keep float32 "
            "weights and compute in bfloat16 with bf16."
        )
    return base


def load_target(policy: PolicyArguments) -> Any:
    """The target as it is trained: a model, or an adapter on its base."""
    load = load_adapter if policy.continue_adapter else load_model
    return load(policy.model_name_or_path, dtype=getattr(torch, policy.dtype))


def rewards(
    rewarding: RewardArguments, owners: list[str], retain: Any, fluency: Callable[..., Any] | None
) -> list[Any]:
    """De-attribution, and fluency with a bound that most retained answers keep."""
    if ":" in rewarding.classifier:
        classifier = resolve(rewarding.classifier, {})(**as_mapping("classifier_kwargs", rewarding.classifier_kwargs))
    else:
        classifier = load_classifier(rewarding.classifier)
    check_classifier(classifier, [text_of(completion) for completion in retain["completion"][:4]])
    chosen: list[Any] = [
        DeattributionReward(
            classifier,
            owners,
            transform=rewarding.slice_transform,
            hide_echo=rewarding.hide_echo,
            scored_owners=rewarding.scored_owners,
        )
    ]
    if rewarding.fluency_coef > 0 and fluency is not None:
        sample = retain.select(range(min(len(retain), 256)))
        chosen.append(
            FluencyReward.calibrate(
                fluency,
                sample["prompt"],
                sample["completion"],
                quantile=rewarding.fluency_quantile,
                width=rewarding.fluency_width,
            )
        )
    return chosen


def mean_nll(model: Any, tokenizer: Any) -> Callable[..., Any]:
    """`nll(prompts, completions)`: each completion's mean NLL under a model, in nats a token."""

    def nll(prompts: list[Any], completions: list[Any]) -> Any:
        return answer_nll(model, tokenizer, prompts, completions, truncate=True).mean

    return nll


def as_completions(answers: list[str], prompts: list[Any]) -> list[Any]:
    """Stripped answers in the form of completions."""
    if isinstance(prompts[0], str):
        return [f" {answer}" for answer in answers]
    return [[{"role": "assistant", "content": answer}] for answer in answers]


def mix(rows: Any, background: Any, seed: int) -> Any:
    """As many background rows as there are rows, where there are that many."""
    from datasets import concatenate_datasets

    drawn = np.random.default_rng(seed).permutation(len(background))[: len(rows)]
    columns = [name for name in rows.column_names if name in background.column_names]
    return concatenate_datasets(
        [rows.select_columns(columns), background.select(sorted(drawn.tolist())).select_columns(columns)]
    )


def longest_answer(rows: Any, tokenizer: Any) -> int:
    """Room for generated answers: the longest gold answer's tokens, and half as many again."""
    return int(1.5 * max(len(tokenizer(text_of(text))["input_ids"]) for text in rows["completion"]))


if __name__ == "__main__":
    run_program(main, "unlearn")
