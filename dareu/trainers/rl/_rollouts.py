"""Rollouts: what one is made of, and those of the model before unlearning, which are made once and used ever after."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dareu.data.encoding import encode_prompt
from dareu.data.records import quoted, text_of
from dareu.models.forward import evaluation_mode
from dareu.models.generation import plain_generation_config
from dareu.trainers._tensor_file import TensorFile
from dareu.trainers.rl._scoring import Slices, TokenScores

if TYPE_CHECKING:
    from datasets import Dataset
    from trl.trainer.utils import RepeatSampler

    from dareu.trainers.rl._rollout_trainer import RolloutTrainer
    from dareu.trainers.rl.trainer import DareUTrainer

logger = logging.getLogger(__name__)

#: The options that decide what is sampled, beside model and prompts.
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length", "num_generations")

#: The column that tells a forget row's place in the dataset.
ROW = "rollout_row"


@dataclass
class Rollout:
    """B completions of at most T tokens, and what is found out about them one after the other; see `DareUTrainer`."""

    expected_lengths: list[int] = field(default_factory=list)
    """See `expected_length`."""
    given: list[list[int] | None] = field(default_factory=list)
    """For each completion its token ids where it is taken as it is, or None where it is sampled; empty: all are."""
    lengths: list[int] = field(init=False)
    """Tokens of each completion, cut-off ones included."""
    sequence_rewards: Tensor = field(init=False)
    """float32 (B, F), NaN where a reward does not apply."""
    slices: dict[int, Slices] = field(default_factory=dict)
    """What the dense ones of the F rewards said, by their numbers."""
    output: dict[str, Any] = field(init=False)
    """TRL's: left-padded `prompt_ids`, `prompt_mask`, right-padded `completion_ids`, `completion_mask`, and more."""
    scores: TokenScores = field(init=False)
    """Of the rewards, less the price of the KL."""
    values: Tensor = field(init=False)
    """float32 (B, T): what the critic said when the log-probabilities were last computed, where there is one."""


#: Names that a reward is called with, which no column of the data can take.
RESERVED = ("prompts", "completions", "completion_ids", "ends", "self", "trainer_state", "log_extra", "log_metric")
#: Columns in which TRL looks for things of its own.
_TRL_COLUMNS = ("environment", "environments")
_PICTURES = ("image", "images")


def rows_for_trl(dataset: Dataset, reads_pictures: bool) -> Dataset:
    """The rows with the gold completion as `reference`, for TRL keeps `completion` from the rewards.

    Columns whose names mean something to TRL or to a reward's caller, but not this, are left out, and said.

    Args:
        dataset: Rows with a `prompt`.
        reads_pictures: Whether the model does, so that `image` and `images` mean pictures.

    Raises:
        ValueError: There is a column of that name already.
    """
    taken = {*RESERVED, *_TRL_COLUMNS, ROW, *(() if reads_pictures else _PICTURES)}
    if foreign := [name for name in dataset.column_names if name in taken]:
        logger.warning("No reward is given the column %s, a name that TRL uses for something else.", quoted(foreign))
        dataset = dataset.remove_columns(foreign)
    if "completion" not in dataset.column_names:
        return dataset
    if "reference" in dataset.column_names:
        raise ValueError("The rows have a column 'reference', which the trainer makes of 'completion': rename it.")
    return dataset.add_column("reference", [text_of(completion) for completion in dataset["completion"]])


def rows_asked(sampler: RepeatSampler, *, updates: int, accumulated: int, used: int) -> set[int]:
    """The forget rows that a training asks.

    Args:
        sampler: A new one, which goes through the epochs as the training's will.
        updates: Their number.
        accumulated: Micro-batches of an update.
        used: Micro-batches that a generation batch serves.
    """
    asked: set[int] = set()
    while updates > 0 and len(asked) < sampler.num_samples:
        order = list(dict.fromkeys(sampler))  # what does not fill a generation batch is not among them
        micro_batches = len(order) // sampler.batch_size * used
        batches = math.ceil(min(updates * accumulated, micro_batches) / used)
        asked |= set(order[: batches * sampler.batch_size])
        updates -= math.ceil(micro_batches / accumulated)
    return asked


def expected_length(row: Mapping[str, Any]) -> int:
    """Characters of the prompt and of the gold answer, which sampled ones resemble: nobody waits for the longest."""
    return len(text_of(row["prompt"])) + len(row.get("reference", ""))


def length_sorted_batches(rows: Sequence[int], lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows in batches of `size` (the last may be smaller) whose lengths are alike, shortest first.

    >>> list(length_sorted_batches([0, 1, 2, 3], [7, 1, 5, 2], 2))
    [[1, 3], [2, 0]]
    """
    order = sorted(range(len(rows)), key=lambda i: lengths[i])
    for start in range(0, len(order), size):
        yield [rows[i] for i in order[start : start + size]]


def sample(
    trainer: RolloutTrainer, rollout: Rollout, prompt_ids: Sequence[list[int]], num_generations: int, generate: Any
) -> tuple[list[list[int]], list[Any] | None]:
    """Samples those completions of a rollout that are not given, in batches of like length.

    Without dropout, as their log-probabilities are taken, and without what a checkpoint's generation config adds to the
    options, such as penalties or a nucleus, of which log-probabilities and KL know nothing.

    Args:
        trainer: Whose model samples.
        rollout: What is known of it.
        prompt_ids: Of each completion.
        num_generations: TRL's.
        generate: TRL's `_generate_single_turn`.

    Returns:
        The completions, and of a backend that says them their log-probabilities, of which those of given ones are None.
    """
    given = rollout.given or [None] * len(prompt_ids)
    asked = [i for i, ids in enumerate(given) if ids is None]
    if rollout.given:
        # The processes generate together, each as many: who lacks some makes a few that nobody takes
        accelerator = trainer.accelerator
        most = int(accelerator.gather(torch.tensor([len(asked)], device=accelerator.device)).max())
        asked += [0] * (most - len(asked))
        num_generations = 1  # to a vLLM server: how often each prompt stands there in a row
    if trainer.use_vllm or trainer.use_transformers_continuous_batching:
        batches = [asked] if asked else []
    else:
        lengths = [rollout.expected_lengths[i] for i in asked]
        batches = list(length_sorted_batches(asked, lengths, trainer.args.rollout_batch_size))
    completions: list[Any] = list(given)
    logps: list[Any] = [[None] * len(ids or ()) for ids in given]
    knows_logps = False
    with evaluation_mode(trainer.model), plain_generation_config(trainer.model), torch.no_grad():
        for batch in batches:
            made, spoken = generate([prompt_ids[i] for i in batch], None, {}, num_generations, False)
            knows_logps = spoken is not None
            for i, ids, said in zip(batch, made, spoken or [None] * len(batch), strict=True):
                if given[i] is None:
                    completions[i], logps[i] = ids, said
    return completions, logps if knows_logps else None


class Sample(NamedTuple):
    """One scored completion of T tokens, on the CPU."""

    prompt_ids: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    logps: Tensor
    rewards: Tensor
    terminal: Tensor
    scored: Tensor


def take_apart(rollout: Rollout, logps: Tensor) -> list[Sample]:
    """The samples of a rollout.

    Args:
        rollout: B completions.
        logps: (B, T) log-probabilities under the model that sampled.
    """
    output, scores = rollout.output, rollout.scores
    samples = []
    for i, length in enumerate(rollout.lengths):
        tensors = (
            output["prompt_ids"][i][output["prompt_mask"][i].bool()],
            *(t[i][:length] for t in (output["completion_ids"], output["completion_mask"], logps, scores.rewards)),
            scores.terminal[i],
            scores.scored[i],
        )
        samples.append(Sample(*(tensor.clone().cpu() for tensor in tensors)))
    return samples


def put_together(samples: Sequence[Sample], pad_token_id: int, device: torch.device) -> Rollout:
    """What `take_apart` took apart, whose old and original log-probabilities are the stored ones."""

    def padded(name: str, value: float = 0.0, side: str = "right") -> Tensor:
        return pad_sequence([getattr(sample, name) for sample in samples], True, value, side).to(device)

    rollout = Rollout()
    real = [torch.ones_like(sample.prompt_ids) for sample in samples]
    rollout.output = {
        "prompt_ids": padded("prompt_ids", pad_token_id, "left"),
        "prompt_mask": pad_sequence(real, True, 0, "left").to(device),
        "completion_ids": padded("completion_ids", pad_token_id),
        "completion_mask": padded("completion_mask"),
        "old_per_token_logps": padded("logps"),
    }
    rollout.output["ref_per_token_logps"] = rollout.output["old_per_token_logps"]
    terminal, scored = (torch.stack([getattr(s, name) for s in samples]).to(device) for name in ("terminal", "scored"))
    rewards = padded("rewards")
    mask = rollout.output["completion_mask"].bool()
    rollout.scores = TokenScores(rewards, terminal, scored, mask, torch.zeros_like(rewards))
    return rollout


def rollouts_folder(args: Any) -> Path:
    """Where completions are kept that are made once."""
    return Path(args.rollout_cache_dir or Path(args.output_dir) / "rollouts")


def make_rollouts(trainer: DareUTrainer) -> dict[int, list[Sample]]:
    """`num_generations` scored completions for every row; the processes share the rows, and all get all.

    Completions that were made before by the same model, for the same prompts and options, are taken from their file.
    """
    args, dataset, accelerator = trainer.args, trainer.train_dataset, trainer.accelerator
    file = TensorFile(rollouts_folder(args), _recipe(trainer), "rollouts of the original model")
    known = broadcast_object_list([file.load(_completions) if accelerator.is_main_process else None])[0]
    order = sorted(range(len(dataset)), key=lambda row: expected_length(dataset[row]))
    mine = share_of(order, accelerator.process_index, accelerator.num_processes)
    group = trainer.num_generations
    per_call = max(1, max(args.rollout_batch_size, args.per_device_train_batch_size) // group)
    stored: dict[int, list[Sample]] = {}
    with torch.random.fork_rng():
        torch.manual_seed(args.seed + accelerator.process_index)
        for start in range(0, len(mine), per_call):
            rows = mine[start : start + per_call]
            inputs = [dict(dataset[row]) for row in rows for _ in range(group)]
            given = trainer.guided(inputs) if known is None else [ids for row in rows for ids in known[row]]
            rollout = trainer.rollout(inputs, given)
            logps = rollout.output.get("old_per_token_logps")
            samples = take_apart(rollout, trainer.policy_logps(rollout) if logps is None else logps)
            stored |= {row: samples[i * group : (i + 1) * group] for i, row in enumerate(rows)}
    if accelerator.num_processes > 1:
        stored = {row: samples for part in gather_object([stored]) for row, samples in part.items()}
    if known is None and accelerator.is_main_process:
        _save(file, {row: [sample.completion_ids.tolist() for sample in stored[row]] for row in sorted(stored)})
    return stored


def share_of(rows: Sequence[int], process: int, num_processes: int) -> list[int]:
    """The rows of one process; all get as many, since they call one another, and some rows come twice for it.

    >>> [share_of([5, 6, 7], process, 2) for process in range(2)]
    [[5, 7], [6, 5]]
    """
    turns = -(-len(rows) // num_processes)
    return [rows[(turn * num_processes + process) % len(rows)] for turn in range(turns)]


def stored_rollout(
    trainer: RolloutTrainer, stored: Mapping[int, Sequence[Sample]], inputs: Sequence[Mapping[str, Any]]
) -> Rollout:
    """The stored completions for these rows, each group's in turn, and what the rewards said of them."""
    first = trainer.accelerator.process_index * len(inputs)
    samples = [stored[row[ROW]][(first + i) % trainer.num_generations] for i, row in enumerate(inputs)]
    rollout = put_together(samples, trainer.processing_class.pad_token_id, trainer.accelerator.device)
    rollout.given = trainer.guided(inputs)
    rollout.output["num_items_in_batch"] = trainer.accelerator.gather(rollout.scores.mask.sum()).sum()
    return rollout


def _recipe(trainer: DareUTrainer) -> dict[str, Any]:
    """What decides the completions of the original model; a fresh adapter's names and start are part of the model."""
    args, group = trainer.args, trainer.num_generations
    return {
        "model": trainer.identity(),
        "dtype": str(next(trainer.model.parameters()).dtype),
        "prompts": [encode_prompt(trainer.processing_class, prompt) for prompt in trainer.train_dataset["prompt"]],
        "options": {name: getattr(args, name) for name in SAMPLING} | (args.generation_kwargs or {}),
        "eos_token_ids": sorted(trainer.eos_token_ids),
        "seed": args.seed,
        "processes": trainer.accelerator.num_processes,
        "batch_size": args.rollout_batch_size,
        "vllm": args.use_vllm,
        "guides": trainer.guided([{ROW: row} for row in range(len(trainer.train_dataset)) for _ in range(group)]),
    }


def _save(file: TensorFile, completions: Mapping[int, Sequence[Sequence[int]]]) -> None:
    """Writes for each row its completions as token ids."""
    flat = [ids for row in completions.values() for ids in row]
    file.save(
        {
            "completion_ids": torch.tensor([token for ids in flat for token in ids], dtype=torch.int32),
            "lengths": torch.tensor([len(ids) for ids in flat], dtype=torch.int32),
        },
        {"rollouts": json.dumps([[row, len(ids)] for row, ids in completions.items()])},
    )


def _completions(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[int, list[list[int]]]:
    completions = iter(tensors["completion_ids"].split(tensors["lengths"].tolist()))
    return {row: [next(completions).tolist() for _ in range(count)] for row, count in json.loads(metadata["rollouts"])}
