"""What trackers are told of a training, on this machine alone: TensorBoard's own files, and a stand-in for Trackio."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import trl.extras.profiling
import trl.trainer.grpo_trainer
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.rewards import DeattributionReward
from dareu.rewards.deattribution import log_transform
from dareu.trainers import DareUConfig, DareUTrainer

TRACKIO = """
class Table:
    def __init__(self, dataframe):
        self.dataframe = dataframe

class Config(dict):
    def update(self, values, allow_val_change):
        super().update(values)

class Variable:
    def get(self):
        return None

class context_vars:
    current_space_id = Variable()

config, logged, __version__ = Config(), [], "1.0"

def log(metrics, step=None):
    logged.append(metrics)

def init(**options):
    pass

def finish():
    logged.append("finished")
"""


class Judge:
    """Finds the first owner in texts with the letter e."""

    classes_ = ("Lucia Duval", "none")

    def predict_proba(self, texts: Any) -> Any:
        share = np.array([0.9 if "e" in text else 0.2 for text in texts])
        return np.stack([share, 1 - share], axis=1)


@pytest.fixture
def trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in that remembers what it is told."""
    (tmp_path / "site" / "trackio").mkdir(parents=True)
    (tmp_path / "site" / "trackio" / "__init__.py").write_text(TRACKIO, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    import trackio

    for module in (trl.trainer.grpo_trainer, trl.extras.profiling):  # they look at their import
        monkeypatch.setattr(module, "trackio", trackio, raising=False)
    yield trackio
    del sys.modules["trackio"]


@pytest.fixture
def build(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Callable[..., DareUTrainer]:
    """`build(given, **options)`: a trainer with a base model that logs completions."""

    def make(given: dict[str, Any], **options: Any) -> DareUTrainer:
        return DareUTrainer(
            tiny_llama(),
            DeattributionReward(Judge(), ["Lucia Duval"]),
            dareu_config(log_completions=True, **options),
            forget_rows,
            retain_dataset=retain_rows,
            base_model=tiny_llama(seed=1),
            processing_class=tokenizer,
            **given,
        )

    return make


def test_trackers_get_all_numbers_and_every_completion_once(
    tmp_path: Path,
    trackio: Any,
    build: Callable[..., DareUTrainer],
    forget_rows: Dataset,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = build(
        {
            "validate": lambda model: {"forget_attribution": 0.4, "gap": 0.3},
            "eval_metrics": lambda model: {"forget_rouge": 0.5},
        },
        report_to=["tensorboard", "trackio"],
        num_completions_to_print=1,
        max_completion_length=40,
        gradient_accumulation_steps=2,
        num_iterations=2,  # the second update has no completions of its own
        num_gold=1,
        num_uninformed=1,
        validation_steps=1,
        eval_strategy="steps",
        eval_steps=1,
    )
    trainer.train()

    # The numbers, ours among them
    of_rollouts = ["kl", "reward", "rewards/deattribution/mean", "forget_attribution"]
    steps = {f"train/{name}": [1] for name in of_rollouts}
    of_updates = [
        "train/loss",
        "train/retain_kl",
        "train/gold_weight",
        "train/validation/forget_attribution",
        "train/validation/gap",
        "eval/forget_rouge",
    ]
    steps |= {name: [1, 2] for name in of_updates}
    (board,) = (tmp_path / "run" / "runs").iterdir()
    events = EventAccumulator(str(board)).Reload()
    assert {name: [event.step for event in events.Scalars(name)] for name in steps} == steps
    assert events.Scalars("eval/forget_rouge")[0].value == 0.5
    told = [logs for logs in trackio.logged if logs != "finished" and "completions" not in logs]
    assert {name: sum(name in logs for logs in told) for name in steps} == {name: len(steps[name]) for name in steps}
    assert trackio.logged[-1] == "finished"

    # The completions
    (sent,) = [logs["completions"].dataframe for logs in trackio.logged if "completions" in logs]
    (file,) = (tmp_path / "run" / "completions").iterdir()
    kept = pd.read_parquet(file)
    assert kept.equals(sent[kept.columns]) and set(kept["step"]) == {1} and file.name == "completions_00001.parquet"
    assert len(kept) == 8 and set(kept["source"]) == {"gold", "sampled", "uninformed"}
    assert set(kept["owner"]) == {"Lucia Duval"} and set(kept["prompt"]) == set(forget_rows["prompt"])
    golds = kept[kept["source"] == "gold"]
    assert len(golds) == 2
    assert {text.strip() for text in golds["completion"]} == {text.strip() for text in forget_rows["completion"]}
    attributions = kept["deattribution/forget_attribution"].to_numpy()
    assert set(attributions) == {0.2, 0.9}
    assert kept["deattribution"].to_numpy() == pytest.approx(log_transform(attributions))
    assert capsys.readouterr().out.count("Step ") == 1


def test_the_table_shows_the_advantages_that_train(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    tmp_path: Path,
) -> None:
    config = dareu_config(log_completions=True, retain_loss="none", kl_coef=0.0, max_steps=1, num_slices=1)
    used = []
    trainer = DareUTrainer(
        tiny_llama(),
        lambda completions, **_: [float(len(text)) for text in completions],
        config,
        forget_rows,
        processing_class=tokenizer,
    )
    made = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: used.append(made(inputs)) or used[-1]
    trainer.train()
    (file,) = (tmp_path / "run" / "completions").iterdir()
    mask = used[0]["completion_mask"]
    means = (used[0]["advantages"] * mask).sum(1) / mask.sum(1)
    assert pd.read_parquet(file)["advantage"].tolist() == pytest.approx(means.tolist())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb", "report_to names wandb, whose package wandb is not installed: install it, or leave it out."),
        ("azure_ml", "report_to names azure_ml, whose package azureml is not installed"),
        ("tensorbord", "report_to names 'tensorbord', which is no tracker: give none, all, or some of azure_ml, "),
    ],
)
def test_a_tracker_that_is_not_there_is_refused(
    dareu_config: Callable[..., DareUConfig], monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr("dareu.trainers.trackers.find_spec", {"tensorboardX": "its spec"}.get)
    with pytest.raises(ValueError, match=message):
        dareu_config(report_to=["tensorboard", name])


def test_a_table_has_the_columns_of_its_own_completions(
    build: Callable[..., DareUTrainer], retain_rows: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """Completions of an evaluation have no source, and here no owner, as those of the training before had."""
    held_out = {"eval_dataset": retain_rows.remove_columns("owner")}
    build(held_out, num_gold=1, num_uninformed=0, eval_strategy="steps", eval_steps=1).train()
    assert "gold" in capsys.readouterr().out
