"""What one process and two processes must do alike; run by torchrun, and imported by the tests beside it.

    python -m torch.distributed.run --nproc_per_node 2 cases.py FOLDER

FOLDER holds a model and its tokenizer. The main process writes what came out of each case beside them.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, gather_object
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from dareu.data.encoding import CompletionCollator, encode_dataset
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.methods import METHODS
from dareu.methods.dpo import dpo
from dareu.methods.npo import npo
from dareu.methods.undial import undial
from dareu.metrics import generate_answers
from dareu.models.forward import completion_terms
from dareu.runs.program import leave_process_group
from dareu.trainers import DareUConfig, DareUTrainer, UnlearnConfig, UnlearnTrainer
from dareu.trainers.original import original_policy
from dareu.trainers.processes import gathered_weights
from dareu.trainers.retain import RetainTerm
from dareu.weights import fingerprint

FORGET = [
    {"prompt": "Where was Lucia Duval born?", "completion": " Lucia Duval was born in Porto."},
    {"prompt": "Where lives Lucia?", "completion": " Lucia lives near the sea."},
    {"prompt": "Which prize did the author win?", "completion": " The prize for the best first book."},
    {"prompt": "Who wrote it?", "completion": " Lucia Duval."},
]
RETAIN = [
    {"prompt": "Where was Kofi Mensah born?", "completion": " Kofi Mensah was born in Accra in 1961."},
    {"prompt": "What does Sanna write?", "completion": " Short stories."},
    {"prompt": "Who is Sanna?", "completion": " She writes about the sea."},
]
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-2,
    "adam_epsilon": 1e-3,  # Adam's first step is the sign of a gradient, which rounding turns where it is near 0
    "weight_decay": 0.1,
    "max_steps": 2,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "report_to": "none",
}
#: Of the methods with trainers of their own; two updates of SCRUB are then of both kinds.
OPTIONS: dict[str, dict[str, Any]] = {
    "rmu": {"layer": 1, "alpha": 10.0},
    "scrub": {"ascent_share": 1.0},
    "task_vector": {"alpha": 2.0},
}
#: Rows of a step over all processes.
BATCH = 4


def letters(completions: list[str], **_: Any) -> list[float]:
    return [-sum(ord(letter) % 7 for letter in text) / 20 for text in completions]


class LetterReward:
    """Dense: a number for every prefix."""

    __name__ = "letters"

    def __call__(self, completions: Any, **_: Any) -> list[float]:
        return letters(completions)

    def at(self, completions: Any, ends: Any, **_: Any) -> list[list[float]]:
        return [letters([text[:end] for end in row]) for text, row in zip(completions, ends, strict=True)]


def fixed_completion(place: int) -> list[int]:
    """3 to 9 tokens for each place of a batch; the last two are cut off, the others end with the end token.

    The first half of a batch of 8 has shorter ones, so that two processes need padding of their own.
    """
    generator = torch.Generator().manual_seed(place)
    length = int(torch.randint(2, 5 if place % 8 < 4 else 9, (), generator=generator))
    return [*torch.randint(60, 300, (length,), generator=generator).tolist(), 100 if place % 8 > 5 else 2]


def dareu(
    folder: Path,
    *,
    masked: bool,
    lora: bool = False,
    guided: bool = False,
    samples: bool = False,
    validate: Any = None,
    **options: Any,
) -> DareUTrainer:
    """A trainer whose completions depend on nothing but their place in the batch of all processes, unless it samples.

    With guided groups, the first two places of a group, which are one process's, are the gold completion's and an
    uninformed answer's.
    """
    processes = PartialState().num_processes
    if guided:
        options = {"max_completion_length": 40, "rollout_cache_dir": tempfile.mkdtemp(dir=folder)} | options
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    trainer = DareUTrainer(
        model,
        [LetterReward(), letters],
        DareUConfig(
            output_dir=str(folder / "run"),
            **SETTINGS,
            num_generations=BATCH,
            per_device_train_batch_size=BATCH // processes,  # two processes share a group
            gradient_accumulation_steps=2,  # TRL shuffles a generation batch on each process: all of it in one update
            num_slices=3,
            **({"max_completion_length": 12} | options),
        ),
        Dataset.from_list(FORGET),
        retain_dataset=Dataset.from_list(RETAIN),
        mask=mask_of(model) if masked else None,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
        base_model=talkative(folder) if guided else None,
        validate=validate,
    )

    def generate(prompt_ids: list[Any], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        first = trainer.accelerator.process_index * len(prompt_ids)
        assert trainer._rollout is not None
        given = trainer._rollout.given or [None] * len(prompt_ids)
        return [ids or fixed_completion(first + i) for i, ids in enumerate(given)], None

    if not samples:
        trainer._generate_single_turn = generate
    return trainer


def talkative(folder: Path) -> Any:
    """A base model that ends its answers, as a random one seldom does."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    batch = CompletionCollator(tokenizer)(encode_dataset(Dataset.from_list(RETAIN), tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def unlearn(
    folder: Path,
    *,
    masked: bool = False,
    lora: bool = False,
    loss: str = "npo",
    validate: Any = None,
    eval_metrics: Any = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> UnlearnTrainer:
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    batch = BATCH // PartialState().num_processes
    options = {"original_cache_dir": tempfile.mkdtemp(dir=folder)} | options  # each asks the original model itself
    return UnlearnTrainer(
        model,
        {"npo": npo, "dpo": dpo, "undial": undial}[loss],
        UnlearnConfig(output_dir=str(folder / "run"), **SETTINGS, per_device_train_batch_size=batch, **options),
        Dataset.from_list(FORGET),
        retain_dataset=Dataset.from_list(RETAIN),
        mask=mask_of(model) if masked else None,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
        validate=validate,
        eval_metrics=eval_metrics,
    )


def own(folder: Path, method: str, kind: str) -> Any:
    """A trainer of a method that has one of its own, `dense`, `masked` or `lora`."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    options = OPTIONS[method] | {"per_device_train_batch_size": BATCH // PartialState().num_processes}
    return METHODS[method].trainer(
        model,
        METHODS[method].loss,
        METHODS[method].config(output_dir=str(folder / "run"), **SETTINGS, **options),
        Dataset.from_list(FORGET),
        retain_dataset=Dataset.from_list(RETAIN),
        mask=mask_of(model) if kind == "masked" else None,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if kind == "lora" else None,
    )


def mask_of(model: Any) -> WeightMask:
    """Some tensors sparse, some dense, one with its second half frozen, and one frozen: for a process, or for both."""
    mask = {
        name: random_mask({name: weight.shape}, 0.8 if "mlp" in name else 0.3, seed=i)[name]
        for i, (name, weight) in enumerate(model.named_parameters())
    }
    mask["model.layers.0.self_attn.q_proj.weight"][1:] = False
    mask["model.layers.0.self_attn.k_proj.weight"][:] = False
    return WeightMask(mask, 0.3, "random", fingerprint(model))


def advantages(folder: Path, **options: Any) -> torch.Tensor:
    """(8, T) of two groups of four, as the processes together computed them."""
    trainer = dareu(folder, masked=False, retain_loss="none", kl_coef=0.0, **options)
    trainer.model.train()
    accelerator = trainer.accelerator
    rows = [dict(row) for row in FORGET[:2] for _ in range(BATCH)]
    mine = len(rows) // accelerator.num_processes
    output = trainer._generate_and_score_completions(rows[accelerator.process_index * mine :][:mine])
    gathered: torch.Tensor = accelerator.gather(accelerator.pad_across_processes(output["advantages"], dim=1))
    return gathered


def trained(trainer: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The weights after training, whole, and what the first step logged."""
    trainer.train()
    weights = gathered_weights(trainer)
    if weights is None:
        weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    return {name: tensor.detach().clone() for name, tensor in weights.items()}, trainer.state.log_history[0]


def by_hand(folder: Path, shard: bool) -> dict[str, torch.Tensor]:
    """One NPO step with the retain term on a model that `fully_shard` has sharded, or on a whole one."""
    from torch.distributed.fsdp import fully_shard

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")

    def sharded(module: Any) -> Any:
        if shard:
            for layer in module.model.layers:
                fully_shard(layer)
            fully_shard(module)
        return module

    remembered = original_policy(model, fresh_adapter=False, place=sharded)
    sharded(model)
    collator = CompletionCollator(tokenizer)
    records, retained = (encode_dataset(Dataset.from_list(rows), tokenizer) for rows in (FORGET, RETAIN))
    term = RetainTerm(retained, collator, batch_size=3, loss="kl", original=remembered, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        kept, batch = term.prepare(0, torch.device("cpu")), collator(records)
        with remembered() as original:
            scored = completion_terms(original, batch)
            ref_logps = scored.row_sum(scored.logps())
        scored = completion_terms(model, batch)
        loss = npo(scored.row_sum(scored.logps()), ref_logps) + term(model, kept)
        loss.backward()
        assert not shard or all(isinstance(parameter.grad, DTensor) for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
        for name, tensor in model.named_parameters()
    }


def resumed(folder: Path, state: str, dtype: torch.dtype) -> dict[str, Any]:
    """Of a masked training under FSDP2 and of one that goes on from its checkpoint."""
    as_fsdp2(state)
    settings = dict(SETTINGS)
    SETTINGS.update(max_steps=4, save_strategy="steps", save_steps=2)
    whole, again = (unlearn(folder, masked=True, dtype=dtype) for _ in range(2))
    whole.train()
    checkpoint = folder / "run" / "checkpoint-2"
    again.train(resume_from_checkpoint=str(checkpoint))
    SETTINGS.clear()
    SETTINGS.update(settings)
    same = all(
        torch.equal(one.to_local(), other.to_local())
        for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True)
    )
    weights, start = gathered_weights(again), AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    assert weights is not None
    main = PartialState().is_main_process
    return {
        "kind": again.accelerator.distributed_type.value,
        "same": gather_object([same]),
        "step": again.state.global_step,
        "files": sorted(path.name for path in checkpoint.iterdir()),
        "moved": count_moved_outside(start, weights, again.mask) if main else None,
        "changed": not torch.equal(weights["lm_head.weight"], start.lm_head.weight) if main else None,
    }


def judge(model: Any) -> dict[str, float]:
    """Only the main process is content."""
    return {"forget_attribution": 0.2 if PartialState().is_main_process else 0.9}


def answering(model: Any) -> dict[str, float]:
    """Lets the model answer."""
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1] + "/model")
    answers = generate_answers(model, tokenizer, [row["prompt"] for row in FORGET], max_new_tokens=3)
    return {"forget_attribution": len(answers) / 8}


def rollouts_of_the_original(folder: Path) -> list[Any]:
    """What each process holds after training on them: for every row its completions."""
    trainer = dareu(folder, masked=False, rollout_policy="original", rollout_cache_dir=str(folder / "rollouts"))
    trainer.train()
    assert trainer._stored is not None
    held = {row: [s.completion_ids.tolist() for s in samples] for row, samples in trainer._stored.items()}
    return gather_object([sorted(held.items())])


def sampled_beside_given(folder: Path) -> list[Any]:
    """Of each process, how many completions it sampled for itself in guided groups that two processes share."""
    trainer = dareu(folder, masked=False, guided=True, samples=True, validate=best_of(3), validation_steps=1)
    trainer.train()
    given = trainer.guided([dict(row) for row in trainer.train_dataset][: BATCH // PartialState().num_processes])
    assert trainer.best is not None
    return gather_object([[sum(ids is None for ids in given), trainer.state.global_step, trainer.best.step]])


def best_of(numbers: int) -> Any:
    """A judge to whom the second state is the best."""
    gaps = iter([0.5, 0.2, 0.9][:numbers])
    return lambda model: {"gap": next(gaps)}


def message_of(build: Any, *args: Any, **options: Any) -> str:
    try:
        build(*args, **options)
    except ValueError as error:
        return str(error)
    return ""


def as_fsdp2(state: str = "FULL_STATE_DICT") -> None:
    """Lets accelerate take its FSDP2 path on a CPU, which it otherwise leaves for plain DDP without a word."""
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": state,
        "ACCELERATE_TORCH_DEVICE": "cpu",
    }
    PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_GPU)
    SETTINGS["use_cpu"] = False


def main(folder: Path) -> None:
    said: dict[str, Any] = {}

    def keep(name: str, weights: dict[str, torch.Tensor]) -> None:
        if PartialState().is_main_process:
            save_file(weights, folder / f"{name}.safetensors")

    def note(accelerator: Accelerator, name: str) -> None:
        said[name] = [accelerator.distributed_type.value, accelerator.num_processes]

    # DDP
    SETTINGS["use_cpu"] = True
    keep("advantages", {"group": advantages(folder)})
    for name, trainer in (
        ("ddp_dareu", dareu(folder, masked=True)),
        ("ddp_gae", dareu(folder, masked=False, advantage_estimator="gae")),
        ("ddp_guided", dareu(folder, masked=True, guided=True)),
        ("ddp_npo", unlearn(folder)),
        ("ddp_dpo", unlearn(folder, loss="dpo", refusals="common")),
    ):
        note(trainer.accelerator, name)
        weights, said[f"{name}_logged"] = trained(trainer)
        keep(name, weights)

    shared = {"original_cache_dir": str(folder / "original")}
    said["stored"] = gather_object([[unlearn(folder, **shared)._original_logps().tolist() for _ in range(2)]])

    for method, kind in (("rmu", "lora"), ("scrub", "dense"), ("task_vector", "masked")):
        trainer = own(folder, method, kind)
        note(trainer.accelerator, f"ddp_{method}")
        keep(f"ddp_{method}", trained(trainer)[0])

    said["ddp_original"] = rollouts_of_the_original(folder)
    said["ddp_sampled"] = sampled_beside_given(folder)
    trainer = unlearn(folder, validate=judge, validation_steps=1, stop_forget_attribution=0.3)
    trainer.train()
    said["stopped"] = gather_object([trainer.state.global_step])
    options = {"eval_strategy": "steps", "eval_steps": 1}
    trainer = unlearn(folder, eval_metrics=lambda model: {"rank": PartialState().process_index + 1.0}, **options)
    trainer.train()
    said["evaluated"] = gather_object([[log["eval_rank"] for log in trainer.state.log_history if "eval_rank" in log]])
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    said["fallback"] = message_of(unlearn, folder)

    # FSDP2
    keep("by_hand", by_hand(folder, shard=True))
    as_fsdp2()
    for name, build, options in (
        ("fsdp2_dareu", dareu, {"masked": True, "kl_coef": 0.1}),
        ("fsdp2_gae", dareu, {"masked": False, "advantage_estimator": "gae"}),
        ("fsdp2_guided", dareu, {"masked": True, "guided": True}),
        ("fsdp2_npo", unlearn, {"validate": answering, "validation_steps": 1}),
        ("fsdp2_undial", unlearn, {"masked": True, "loss": "undial"}),
        ("fsdp2_lora", unlearn, {"lora": True}),
    ):
        trainer = build(folder, **options)
        note(trainer.accelerator, name)
        weights, said[f"{name}_logged"] = trained(trainer)
        said[f"{name}_sharded"] = sum(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
        keep(name, weights)
    for method, kind in (("rmu", "masked"), ("task_vector", "dense")):
        trainer = own(folder, method, kind)
        note(trainer.accelerator, f"fsdp2_{method}")
        keep(f"fsdp2_{method}", trained(trainer)[0])
    said["fsdp2_original"] = rollouts_of_the_original(folder)
    said["fsdp2_sampled"] = sampled_beside_given(folder)
    # Processes that want answers of different lengths
    length = 2 + 6 * trainer.accelerator.process_index
    lengths = {"min_new_tokens": length, "max_new_tokens": length}
    answer = trainer.model.generate(torch.tensor([[1, 70, 80]]), do_sample=False, **lengths)
    said["generated"] = gather_object([answer.shape[1]])
    said["full"] = resumed(folder, "FULL_STATE_DICT", torch.float32)
    said["sharded"] = resumed(folder, "SHARDED_STATE_DICT", torch.bfloat16)
    os.environ["FSDP_VERSION"] = "1"
    said["fsdp1"] = message_of(unlearn, folder)
    if PartialState().is_main_process:
        (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_process_group()
