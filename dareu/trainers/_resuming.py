"""Checkpoints that appear whole, and training that goes on from one as if it had never stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from trl.trainer.utils import RepeatSampler

from dareu.files import write_json
from dareu.trainers.checkpoints import checkpoint_name, delete_older, last_checkpoint, write_manifest
from dareu.trainers.processes import Measuring, measured_alike
from dareu.trainers.stopwatch import Stopwatch

_PROGRESS = "progress.json"


class Resumable(Trainer):
    """A `transformers.Trainer` whose checkpoints are whole and exact; stands before it in the bases.

    A checkpoint is written to a hidden folder, given a manifest (see `dareu.trainers.checkpoints`) and renamed once all
    processes are done; older ones are deleted after that. It also holds what the Trainer forgets: where the streams
    of data stand, the sums behind the logs, and that training had ended. The logs' window is closed before each
    checkpoint, so that nothing which is still to be logged is lost.

    The output folder must be one that all processes see.

    Args:
        *args: The Trainer's.
        eval_metrics: What `evaluate` measures, in place of a loss on an `eval_dataset`: takes the model, gives numbers
            by name, which are logged under `eval_`. `eval_strategy`, `metric_for_best_model` and
            `load_best_model_at_end` go by them as by any others. Every process calls it, and the main one's numbers
            count.
        **kwargs: The Trainer's.
    """

    #: Counts the training where its seconds are wanted: earlier stretches are added to it on resuming.
    stopwatch: Stopwatch | None = None
    _written_to: Path | None = None
    _progress: dict[str, Any] | None = None

    def __init__(self, *args: Any, eval_metrics: Measuring | None = None, **kwargs: Any) -> None:
        self._eval_metrics = eval_metrics
        if eval_metrics is not None:
            if kwargs.get("eval_dataset") is not None:
                raise ValueError("eval_metrics measures in place of an eval_dataset: give one of them.")
            kwargs["eval_dataset"] = []  # nothing reads it, but the Trainer asks for one
        super().__init__(*args, **kwargs)
        self.micro_steps = 0
        """Forward and backward passes of this training so far, those before an interruption included."""
        self._save_due = False
        self.add_callback(_GoOn(self))

    @property
    def can_resume_here(self) -> bool:
        """Whether a checkpoint of this moment holds all that the next update needs; a save waits until it does."""
        return True

    def _save_extra(self, folder: str) -> None:
        """Writes more files into a checkpoint that is being made; all processes come here."""

    def _load_extra(self, folder: str) -> None:
        """Reads what `_save_extra` wrote, once model, optimizer and scheduler are loaded; all processes come here."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """What `eval_metrics` measures now, logged; without it what the Trainer measures on an `eval_dataset`."""
        if self._eval_metrics is None:
            return dict(super().evaluate(eval_dataset, ignore_keys, metric_key_prefix))
        assert self.model is not None
        measured = measured_alike(self._eval_metrics, self.model, "eval_metrics")
        numbers = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        chosen = self.args.metric_for_best_model
        if chosen is not None and not {chosen, f"eval_{chosen}"} & {f"eval_{name}" for name in measured}:
            raise ValueError(f"metric_for_best_model is {chosen!r}: what is measured are {', '.join(measured)}.")
        Trainer.log(self, numbers)  # TRL's would close the window of what is logged in training
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, numbers)
        return numbers

    # -- saving ------------------------------------------------------------------------------------------------

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        due = self.control.should_save or self._save_due
        now = due and (self.can_resume_here or self.control.should_training_stop)
        self._save_due, self.control.should_save = due and not now, now
        self.control.should_log |= now
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run, name = Path(self._get_output_dir(trial)), checkpoint_name(self.state.global_step)
        hidden, final = run / ".tmp-checkpoint", run / name
        if self.args.should_save:
            shutil.rmtree(hidden, ignore_errors=True)  # of a process that was killed
        self.accelerator.wait_for_everyone()
        self._written_to = hidden
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._written_to = None
        self._save_extra(str(hidden / name))
        self.accelerator.wait_for_everyone()
        if self.state.best_model_checkpoint == str(hidden / name):
            self.state.best_model_checkpoint = str(final)
        if self.args.should_save:
            self.state.save_to_json(str(hidden / name / TRAINER_STATE_NAME))
            write_json(hidden / name / _PROGRESS, self._progress_so_far())
            write_manifest(hidden / name)
            if final.exists():  # cut short, or of a stretch that is gone through again
                shutil.rmtree(final)
            (hidden / name).rename(final)
            hidden.rmdir()
            if self.args.save_total_limit:
                delete_older(run, self.args.save_total_limit, best=self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(final))

    def _get_output_dir(self, trial: Any) -> str:
        """The run's folder, or the hidden one in it while a checkpoint is written."""
        return str(super()._get_output_dir(trial) if self._written_to is None else self._written_to)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._written_to is None:  # else it is pushed from its last place, for the upload goes on meanwhile
            super()._push_from_checkpoint(checkpoint_folder)

    def _progress_so_far(self) -> dict[str, Any]:
        return {
            "micro_steps": self.micro_steps,
            "total_loss": self._total_loss_scalar,
            # By a callback; a run that reached its last step may be given more of them
            "stopped": self.control.should_training_stop and self.state.global_step < self.state.max_steps,
            "seconds": 0.0 if self.stopwatch is None else self.stopwatch.seconds,
        }

    # -- going on ----------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Trains; with `resume_from_checkpoint=True` from the last whole checkpoint of the output folder.

        Raises:
            ValueError: There is none.
        """
        if resume_from_checkpoint is True:
            found = last_checkpoint(str(self.args.output_dir))
            if found is None:
                raise ValueError(
                    f"{self.args.output_dir} holds no whole checkpoint to resume from: train from the start."
                )
            resume_from_checkpoint = found
        if isinstance(resume_from_checkpoint, Path):
            resume_from_checkpoint = str(resume_from_checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            path = Path(checkpoint) / _PROGRESS
            self._progress = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            self._load_extra(checkpoint)

    def _go_on(self, control: TrainerControl) -> None:
        """Restores what the Trainer has just set back to its start."""
        progress, self._progress, self._save_due = self._progress, None, False
        self.micro_steps = 0
        if hasattr(self, "_buffered_inputs"):  # TRL's, of a training before this one
            self._step, self._buffered_inputs = 0, None
        if progress is None:
            return
        step = self.state.global_step
        self.micro_steps = progress.get("micro_steps", step * self.args.gradient_accumulation_steps)
        self._total_loss_scalar = progress.get("total_loss", 0.0)
        control.should_training_stop = progress.get("stopped", False) or step >= self.state.max_steps
        if self.stopwatch is not None:
            self.stopwatch.before += progress.get("seconds", 0.0)
        if hasattr(self, "_metrics"):  # TRL's; what came before the first step is in its log already
            self._metrics["train"].clear()

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_training_stop:  # before the interruption; the Trainer would make one more update
            return
        _set_order(kwargs["train_dataloader"], kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """A micro-step, counted."""
        loss: Tensor = super().training_step(model, *args, **kwargs)
        self.micro_steps += 1
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Logs what the Trainer does; the mean loss at the end is that of all stretches."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, *args, **kwargs)


class _GoOn(TrainerCallback):
    """Calls the trainer back once it has set itself to the start of a training."""

    def __init__(self, trainer: Resumable) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer._go_on(control)


def _set_order(loader: Any, epoch: int) -> None:
    """Puts the sampler where it stands when the epochs before have been read.

    TRL's sampler draws each epoch's order from a generator that it carries along, and accelerate tells its own sampler
    the epoch only where no more than one wrapper lies between.
    """
    sampler: Any = loader.batch_sampler
    while hasattr(sampler, "batch_sampler"):  # each process's share
        sampler = sampler.batch_sampler
    sampler = getattr(sampler, "sampler", None)
    if isinstance(sampler, RepeatSampler) and sampler.shuffle and sampler.seed is not None:
        sampler.generator.manual_seed(sampler.seed)
        for _ in range(epoch):
            torch.randperm(sampler.num_samples, generator=sampler.generator)
    elif hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
