"""Unlearns owners from a model, by DareU or by a loss-based method, dense, masked or with LoRA.

    dareu unlearn --method dareu --model_name_or_path runs/target/model --classifier runs/classifier/classifier \
        --mask runs/mask/mask.safetensors --output_dir runs/dareu
    dareu unlearn --method npo --model_name_or_path runs/target/model --output_dir runs/npo

The model is saved in OUTPUT_DIR/model. `dareu unlearn --method npo --help` lists the options of a method.
"""

import copy
import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dareu.classifiers import check_classifier, load_classifier, owner_columns, strip_echo
from dareu.data import mix_background, text_of, thin
from dareu.data.parts import DataArguments, chat_form, forget_names, load_parts, split_owners
from dareu.masks import WeightMask, count_moved_outside, saved_for
from dareu.metrics import answer_nll, measure
from dareu.metrics.validation import Reference, Validation
from dareu.models import (
    check_mergeable,
    load_base_tokenizer,
    load_model,
    load_tokenizer,
    resolve_model_path,
    save_model,
)
from dareu.options.policy import PolicyArguments
from dareu.options.unlearn import (
    RewardArguments,
    UnlearnOptions,
    check_unlearning,
    parse_unlearning,
)
from dareu.plugins import build, plugin_name, resolve
from dareu.rewards import REWARDS
from dareu.runs import ResultRow, config_of, inputs_of, open_run, write_results
from dareu.runs.memory import PeakMemory
from dareu.runs.metrics_log import MetricsLog
from dareu.runs.program import run_program
from dareu.trainers.checkpoints import last_checkpoint
from dareu.trainers.processes import gathered_weights, load_whole_weights
from dareu.trainers.shared import load_policy
from dareu.trainers.stopwatch import Stopwatch
from dareu.trainers.trackers import TRACKING
from dareu.values import as_mapping

logger = logging.getLogger("dareu.unlearn")

NOTHING_BETTER = "no state was better than the model before training, which is what was saved"


def main() -> None:
    options, _ = parse_unlearning()
    choice, data, judges, policy, retaining, training, rewarding = options
    config = config_of(*options.parts)  # before anything that is measured is written into it

    # Everything that can be wrong is looked at before anything is written
    check_unlearning(options, REWARDS)
    load_whole_weights()
    origin = policy.origin()
    tokenizer, model = load_tokenizer(policy.model_name_or_path, pad_token=data.pad_token), policy.load()
    if policy.continue_adapter and policy.merge_adapter:
        check_mergeable(model)
    rows = load_rows(data, tokenizer, retaining.share(policy.model_name_or_path), training.seed)
    mask = WeightMask.load(policy.mask) if policy.mask is not None else None
    base = load_base(options, tokenizer)
    stopwatch = Stopwatch()
    validate = None
    if judges.validation_judge is not None:
        judge: Any = load_classifier(judges.validation_judge)
        owner_columns(judge, rows.owners)
        validation = Validation(
            model.to(training.device),
            tokenizer,
            rows.forget,
            rows.asked,
            judge=judge,
            forget_owners=rows.owners,
            strip=strip_echo,
            base=None if base is None else Reference(base.model, base.tokenizer),
        )
        logger.info("Levels that validation measures against: %s", validation.levels)
        if judges.stop_at_base_level:
            training.stop_forget_attribution = validation.levels["forget_attribution"]
        validate = stopwatch.paused()(validation)
    objective: Any = options.method.loss
    if rewarding is not None:
        offered = offered_to_rewards(options, rows, tokenizer, model, base)
        objective, training.reward_weights = build_rewards(rewarding, offered)

    # Train; what is computed once, such as the original model's log-probabilities, counts in time and memory
    with PeakMemory(training.device) as memory, stopwatch:
        trainer = options.method.trainer(
            model,
            objective,
            training,
            rows.forget,
            retain_dataset=rows.retain,
            base_model=None if base is None else base.model,
            base_tokenizer=None if base is None else base.tokenizer,
            mask=mask,
            processing_class=tokenizer,
            peft_config=policy.fresh_adapter(),
            validate=validate,
            eval_metrics=evaluation(options, rows, tokenizer, base),
            callbacks=[],
        )
        with training.main_process_first(local=False, desc="opening the run"):
            alone = training.process_index == 0
            run = open_run(training.output_dir, config, inputs_of(*options.parts), free=TRACKING, alone=alone)
        if run.done:
            if trainer.is_world_process_zero():
                print(f"{run.folder} is done: delete it to run again.")
            return
        trainer.add_callback(MetricsLog(run.metrics_path))
        trainer.stopwatch = stopwatch  # its seconds are kept in checkpoints
        trainer.train(resume_from_checkpoint=last_checkpoint(run.folder))
    vain = trainer.nothing_learnt()
    trained = trained_model(trainer, policy, tokenizer, training.seed, origin)
    if trained is None:  # not the main process
        return

    # Save, and compare what was frozen bit for bit
    model_path = str(run.folder / "model")
    save_model(trained, tokenizer, model_path, merge=policy.lora and policy.merge_adapter)
    metrics: dict[str, float] = {"updates": trainer.state.global_step}
    if trainer.best is not None and trainer.best.gap is not None:
        metrics |= {"best_update": trainer.best.step, "best_gap": trainer.best.gap}
    if mask is not None:
        metrics["moved_outside_mask"] = moved_outside(policy, model_path, mask)
    vain = vain or (NOTHING_BETTER if metrics.get("best_update") == 0 else None)
    row: ResultRow = {
        "method": plugin_name(choice.method),
        "mask": mask.score if mask is not None else None,
        "seed": training.seed,
        "model": model_path,
        "metrics": metrics,
        "seconds": stopwatch.seconds,
        "peak_memory_bytes": memory.bytes,
    }
    if vain is not None:
        row["nothing_learnt"] = vain
    write_results(run.results_path, [row])
    print(f"The model is in {model_path}; {trainer.state.global_step} updates took {stopwatch.seconds:.0f} s.")
    if best := metrics.get("best_update"):
        print(f"It is the model after {best:.0f} of them.")
    if vain is not None and choice.strict:
        raise ValueError(f"Nothing has been forgotten: {vain}.")
    run.mark_done()
    if vain is not None:
        print(f"WARNING: nothing has been forgotten: {vain}.")


class Rows(NamedTuple):
    """What is forgotten, and what is retained, as the model reads it."""

    forget: Any
    retain: Any
    """With background people among them, as the retain term takes them."""
    asked: Any
    """Without these, as validation asks them."""
    owners: list[str]
    """Those to forget."""
    test: Any
    """Rows that no model was trained on; None where there are none."""


class Base(NamedTuple):
    """The checkpoint that the target was fine-tuned from."""

    model: Any
    tokenizer: Any
    nll: Callable[..., Any]
    """`nll(prompts, completions)`: each completion's mean NLL, in nats a token."""


def load_rows(data: DataArguments, tokenizer: Any, background_share: float, seed: int) -> Rows:
    """The rows, such a share of the retained ones being background people."""
    parts = load_parts(data)
    split = split_owners(data, parts.owners)
    retain = split.retain
    if parts.background is not None and background_share:
        retain = mix_background(retain, parts.background, background_share, seed)
    forget, retain, asked = (chat_form(data, side, tokenizer) for side in (split.forget, retain, split.retain))
    test = None if parts.test is None else chat_form(data, parts.test, tokenizer)
    return Rows(forget, retain, asked, forget_names(data, parts.owners), test)


def evaluation(options: UnlearnOptions, rows: Rows, tokenizer: Any, base: Base | None) -> Any:
    """What is measured of the model on the way, where metrics are named."""
    judges, chosen = options.judges, options.judges.evaluated()
    if not chosen:
        return None
    splits = {"forget": rows.forget, "retain": rows.asked}
    splits |= {} if rows.test is None else {"test": rows.test}
    return partial(
        measured,
        tokenizer=tokenizer,
        splits={name: thin(split, judges.eval_max_rows) for name, split in splits.items()},
        judges={} if judges.validation_judge is None else {"validation": load_classifier(judges.validation_judge)},
        forget_owners=rows.owners,
        base_model=None if base is None else base.model,
        base_tokenizer=None if base is None else base.tokenizer,
        strip=strip_echo,
        metrics=chosen,
        options=judges.eval_metric_kwargs,
        max_new_tokens=max(1, options.training.max_completion_length or 0),
    )


def measured(model: Any, **settings: Any) -> dict[str, float]:
    """Numbers of a model by name."""
    return measure(model, **settings).metrics


def load_base(options: UnlearnOptions, target_tokenizer: Any) -> Base | None:
    """The base model, which judges fluency, where one is named."""
    name = options.judges.base_model
    if name is None:
        return None
    model = load_model(name, dtype=getattr(torch, options.policy.dtype)).to(options.training.device)
    tokenizer = load_base_tokenizer(name, target_tokenizer, pad_token=options.data.pad_token)
    return Base(model, tokenizer, mean_nll(model, tokenizer))


def offered_to_rewards(
    options: UnlearnOptions, rows: Rows, tokenizer: Any, model: Any, base: Base | None
) -> dict[str, Callable[[], Any]]:
    """What a reward may ask for, each made when one does."""
    assert options.rewarding is not None
    rewarding: RewardArguments = options.rewarding

    @cache
    def nll() -> Callable[..., Any]:
        if base is not None:
            return base.nll
        logger.warning("No base_model is given: the target judges fluency, and finds memorised text most fluent.")
        return mean_nll(copy.deepcopy(model).to(options.training.device), tokenizer)

    @cache
    def classifier() -> Any:
        return reward_classifier(rewarding, [text_of(completion) for completion in rows.retain["completion"][:4]])

    return {
        "classifier": classifier,
        "forget_owners": lambda: rows.owners,
        "nll": nll,
        "retained": lambda: rows.retain,
        "tokenizer": lambda: tokenizer,
    }


def trained_model(trainer: Any, policy: PolicyArguments, tokenizer: Any, seed: int, origin: str | None) -> Any:
    """The model as it is saved; None on all processes but the main one, though all have to call."""
    weights = gathered_weights(trainer)  # by all processes together; from here on the main one works alone
    if not trainer.is_world_process_zero():
        return None
    if weights is None:
        trained = trainer.accelerator.unwrap_model(trainer.model)
    else:
        load_whole_weights()
        trained = load_policy(policy.load(), tokenizer, policy.fresh_adapter(), seed)[0]
        trained.load_state_dict(weights)
    if policy.lora:
        name = resolve_model_path(origin or policy.model_name_or_path)
        # A hub id stays one; a folder is found from anywhere
        name = str(Path(name).resolve()) if Path(name).exists() else name
        trained.active_peft_config.base_model_name_or_path = name
    return trained


def moved_outside(policy: PolicyArguments, model_path: str, mask: WeightMask) -> int:
    """How many weights outside the mask moved, which is none."""
    before = policy.load()
    moved = count_moved_outside(before, saved_for(mask, model_path, before.dtype), mask)
    print(f"{moved} of the {mask.total - mask.count:,} weights outside the mask moved, compared bit for bit.")
    if moved:
        raise RuntimeError("Weights outside the mask moved: this is a fault of dareu, please report it.")
    return moved


def build_rewards(
    rewarding: RewardArguments, offered: Mapping[str, Callable[[], Any]]
) -> tuple[list[Any], list[float]]:
    """The rewards and their weights."""
    made: dict[str, Any] = {}
    chosen = rewarding.chosen()
    for name, (_, options) in chosen.items():
        reward = build(resolve(name, REWARDS), offered, options, f"The reward {name!r}")
        called = getattr(reward, "__name__", type(reward).__name__)
        if called in made:
            raise ValueError(f"Two rewards are called {called!r}: give one of them another __name__.")
        made[called] = reward
    return list(made.values()), [weight for weight, _ in chosen.values()]


def reward_classifier(rewarding: RewardArguments, texts: list[str]) -> Any:
    """The classifier of the reward, which is tried on some texts."""
    if not rewarding.plugs_in_classifier():
        classifier: Any = load_classifier(rewarding.classifier)
    else:
        kwargs = as_mapping("classifier_kwargs", rewarding.classifier_kwargs)
        classifier = build(resolve(rewarding.classifier, {}), {}, kwargs, f"The classifier {rewarding.classifier!r}")
    check_classifier(classifier, texts)
    return classifier


def mean_nll(model: Any, tokenizer: Any) -> Callable[..., Any]:
    """`nll(prompts, completions)`: each completion's mean NLL under a model, in nats a token."""

    def nll(prompts: list[Any], completions: list[Any]) -> Any:
        return answer_nll(model, tokenizer, prompts, completions, truncate=True).mean

    return nll


if __name__ == "__main__":
    run_program(main, "unlearn")
