"""DareU: policy-gradient unlearning of whose data a model was trained on, on TRL's GRPO loop."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from transformers import ProcessorMixin

from dareu.data.encoding import encode_dataset, encode_prompts
from dareu.data.records import check_columns, text_of
from dareu.trainers._uninformed import Uninformed, check_survival
from dareu.trainers.prepared import prepare
from dareu.trainers.rl._advantages import clipped_value_loss, group_advantages
from dareu.trainers.rl._barren import BarrenBatches
from dareu.trainers.rl._critic import Critic
from dareu.trainers.rl._guides import make_guides
from dareu.trainers.rl._rollout_trainer import RolloutTrainer
from dareu.trainers.rl._rollouts import ROW, make_rollouts, rows_asked, rows_for_trl
from dareu.trainers.rl._scoring import scorer
from dareu.trainers.rl.config import DareUConfig
from dareu.trainers.rl.estimators import gae
from dareu.trainers.shared import SharedMixin, check_room, load_policy

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl.trainer.utils import RepeatSampler

    from dareu.masks import WeightMask
    from dareu.trainers._stopping import Validate
    from dareu.trainers.processes import Measuring


logger = logging.getLogger(__name__)

#: Arguments of `GRPOTrainer` by which completions come from elsewhere.
_GENERATE = ("rollout_func", "tools", "environment_factory")


class DareUTrainer(SharedMixin, RolloutTrainer):
    """TRL's `GRPOTrainer` with token-level advantages from slice rewards, a mask and a retain term.

    For each prompt of the forget set completions are sampled and every reward scores them, slice by slice where it
    can. A token's reward is the running mean of the slices' scores minus `kl_coef` times the KL to the model before
    unlearning, π_N; its return is taken over the remaining tokens (`return_mode`), and its advantage is the return
    minus the group's mean at the same position, or GAE against a critic, or what an estimator of yours makes of it
    (`advantage_estimator`). The clipped surrogate is TRL's. The retain term, on retained rows, joins the loss.

    Args:
        model: The target: a path, a hub id or a loaded model. It is trained in place.
        reward_funcs: One or more TRL rewards; see `dareu.rewards`.
        args: Options.
        train_dataset: The forget rows, with a `prompt` column; all columns but `prompt` and `completion` go to the
            rewards, and the gold completion does as `reference`.
        retain_dataset: The retained rows, with `prompt` and `completion`.
        base_model: The checkpoint that the target was fine-tuned from, for guided groups; it is not trained.
        base_tokenizer: Its tokenizer; default: that of the model.
        mask: The weights that may move; None: all.
        processing_class: The tokenizer; loaded with the model where `model` is a string.
        peft_config: Trains a fresh adapter in place of the weights.
        validate: Measures the model for early stopping; see `SharedArguments`.
        eval_metrics: Measures the model where `eval_strategy` says; see `dareu.trainers._resuming.Resumable`.
        callbacks: More Trainer callbacks.
        **kwargs: Other arguments of `GRPOTrainer`.

    Raises:
        ValueError: Before any training, where data, mask, options and model do not go together.
    """

    model: nn.Module
    max_completion_length: int
    train_dataset: Any
    _tag_names = ["trl", "dareu", "unlearning"]  # noqa: RUF012  # as in the base
    _name = "DareU"

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: Any,
        args: DareUConfig,
        train_dataset: Dataset,
        *,
        retain_dataset: Dataset | None = None,
        base_model: PreTrainedModel | None = None,
        base_tokenizer: PreTrainedTokenizerBase | None = None,
        mask: WeightMask | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        validate: Validate | None = None,
        eval_metrics: Measuring | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs: Any,
    ) -> None:
        model, processing_class = load_policy(model, processing_class, peft_config, args.seed)
        if "completion" in train_dataset.column_names:  # rewards read it after the prompt, and gold ones are taught
            prompts = [record.prompt_ids for record in encode_dataset(train_dataset, processing_class)]
        else:
            prompts = encode_prompts(processing_class, train_dataset["prompt"])
        check_room(prompts, args.max_completion_length or 0, model)
        per_batch = (args.generation_batch_size or 0) // (args.num_generations or 1)
        if len(train_dataset) < per_batch:  # TRL would drop the only batch, and train on nothing
            raise ValueError(
                f"There are {len(train_dataset)} forget rows, but a generation batch takes {per_batch} prompts: lower "
                "per_device_train_batch_size or steps_per_generation."
            )
        if not args.shuffle_dataset and len(train_dataset) % per_batch:
            raise ValueError(
                f"A generation batch takes {per_batch} prompts, and of the {len(train_dataset)} forget rows the same "
                f"{len(train_dataset) % per_batch} would be left out of every epoch: set shuffle_dataset=True, or "
                "choose batches that divide the rows."
            )
        # π_N is remembered before TRL patches the model's forward.
        prepared = prepare(
            model,
            processing_class,
            args,
            retain_dataset=retain_dataset,
            mask=mask,
            fresh_adapter=peft_config is not None,
            needs_original=args.kl_coef > 0 and args.rollout_policy == "current",
            validate=validate,
            accelerator=lambda: self.accelerator,
        )
        self.num_gold, self.num_uninformed = args.guides(base_model is not None)
        makes_own = next((name for name in _GENERATE if kwargs.get(name)), None)
        if makes_own and (self.num_gold or self.num_uninformed or args.rollout_policy == "original"):
            raise ValueError(
                f"{makes_own} makes the completions, so that none can be given: leave it out, or set num_gold and "
                "num_uninformed to 0 and rollout_policy to 'current'."
            )
        self._base = None
        if self.num_gold or self.num_uninformed:
            assert base_model is not None, "guides has looked"
            self._base = Uninformed(base_model, base_tokenizer or processing_class)
            check_columns(train_dataset, ("prompt", "completion"))
            check_survival(self._base, [text_of(completion) for completion in train_dataset["completion"]])
            endless = self.num_gold and args.gold_beta == 0
            if endless and self._base.tokenizer.get_vocab() != processing_class.get_vocab():
                raise ValueError(
                    "gold_beta is 0, and the base model has other tokens than the target, so that the push on gold "
                    "tokens would never end: give a gold_beta above 0."
                )
        else:
            logger.info(
                "Groups are not guided: %s.",
                "there is no base model" if base_model is None else "they are to be sampled",
            )
        self._guides = None
        reads_pictures = isinstance(processing_class, ProcessorMixin)
        train_dataset = rows_for_trl(train_dataset, reads_pictures)
        if args.rollout_policy == "original" or self._base is not None:
            train_dataset = train_dataset.add_column(ROW, list(range(len(train_dataset))))
        if isinstance(held_out := kwargs.get("eval_dataset"), dict):
            kwargs["eval_dataset"] = {name: rows_for_trl(rows, reads_pictures) for name, rows in held_out.items()}
        elif held_out is not None:
            kwargs["eval_dataset"] = rows_for_trl(held_out, reads_pictures)
        self._estimator = args.estimator()
        self._loss_inputs = self._rollout = self._stored = self.critic = None
        compares = self._estimator.function in (group_advantages, gae)  # one of the user's own may push equal ones
        self._barren = BarrenBatches(args.max_completion_length or 0, compares=compares)
        rewards = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        super().__init__(
            model,
            [
                scorer(reward, processing_class, args.num_slices, index, self._keep)
                for index, reward in enumerate(rewards)
            ],
            args,
            train_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            prepared=prepared,
            validate=validate,
            eval_metrics=eval_metrics,
            **kwargs,
        )
        if self._estimator.has_critic:
            self.critic = Critic(
                self.model,
                identity=self.identity(),
                learning_rate=args.value_learning_rate,
                detach=args.detach_value_head,
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains; what the original model says is asked first, before any checkpoint is loaded."""
        # Sharding comes with training: until then each process holds the whole model.
        if self._base is not None and self._guides is None:
            self.model.to(self.accelerator.device).train()
            self._guides = make_guides(self, self._base)
        if self.args.rollout_policy == "original" and self._stored is None:
            self.model.to(self.accelerator.device).train()
            self._stored = make_rollouts(self)
        return super().train(*args, **kwargs)

    def rows_reached(self, max_steps: int) -> tuple[int, int]:
        """As of every trainer; TRL leaves out of an epoch what does not fill a generation batch."""
        asked = rows_asked(
            cast("RepeatSampler", self._get_train_sampler()),
            updates=max_steps,
            accumulated=self.args.gradient_accumulation_steps,
            used=self.args.steps_per_generation * self.num_iterations,
        )
        return len(asked), len(self.train_dataset)

    def nothing_learnt(self) -> str | None:
        """What every generation batch lacked to be learnt from; or as of every trainer."""
        return self._barren.reason() or super().nothing_learnt()

    @property
    def can_resume_here(self) -> bool:
        """Whether every completion of the last rollout has been used, since checkpoints do not keep them."""
        return bool(self._step % (self.args.steps_per_generation * self.num_iterations) == 0)

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        batch = self._prepare_retain()
        retained = None if batch is None else self._retain_penalty(model, batch)
        # With stored rollouts the KL to π_N is a loss term: TRL's k3 estimate on the stored log-probabilities.
        self.beta = self.args.kl_coef if "ref_per_token_logps" in inputs else 0.0
        critic = self.critic if "returns" in inputs else None
        self._loss_inputs = dict(inputs)  # a copy, for TRL may compute the loss of a batch several times
        try:
            with nullcontext() if critic is None else critic.watch() as hidden:
                loss: Tensor = super()._compute_loss(model, self._loss_inputs)  # type: ignore[no-untyped-call]
        finally:
            self._loss_inputs = None
            self.beta = 0.0  # TRL would look for a reference model of its own while it samples
        if critic is not None:
            assert hidden is not None
            values = critic.values(hidden, inputs["completion_ids"].shape[1])
            loss = loss + self.args.vf_coef * self._value_loss(values, inputs)
        if retained is None:
            return loss
        penalty, term = retained
        self._metrics["train"][f"retain_{self.args.retain_loss}"].append(self.accelerator.gather(term).mean().item())
        # TRL's loss comes scaled for accumulation, so this term must be too.
        return loss + penalty / self.current_gradient_accumulation_steps

    def _value_loss(self, values: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Of (B, T) values of a micro-batch, normalised as TRL does its token losses."""
        mask = inputs["value_mask"]
        losses = clipped_value_loss(values, inputs["old_values"], inputs["returns"], self.args.cliprange_value)
        self._log_token_mean("value_loss", losses.detach(), mask)
        window = self.current_gradient_accumulation_steps / self.args.steps_per_generation
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes * window
        loss: Tensor = (losses * mask).sum() / tokens
        return loss

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """A step of the Trainer, and of the critic with it."""
        loss: Tensor = super().training_step(model, *args, **kwargs)
        if self.critic is not None and self.accelerator.sync_gradients:
            self.critic.step(self.accelerator)
        return loss

    def _progress_so_far(self) -> dict[str, Any]:
        return super()._progress_so_far() | {"barren": self._barren.state()}

    def _save_extra(self, folder: str) -> None:
        super()._save_extra(folder)
        if self.critic is not None and self.accelerator.is_main_process:
            self.critic.save(folder)

    def _load_extra(self, folder: str) -> None:
        super()._load_extra(folder)
        self._barren.go_on((self._progress or {}).get("barren"))
        if self.critic is not None:
            self.critic.load(folder)
