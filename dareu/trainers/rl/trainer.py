"""DareU: policy-gradient unlearning of whose data a model was trained on, on TRL's GRPO loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import ProcessorMixin

from dareu.data.encoding import encode_prompts
from dareu.models.forward import evaluation_mode, sampled_logps, sampled_terms
from dareu.models.generation import plain_generation_config
from dareu.trainers._uninformed import Uninformed
from dareu.trainers.prepared import prepare
from dareu.trainers.rl._advantages import clipped_value_loss
from dareu.trainers.rl._barren import BarrenBatches
from dareu.trainers.rl._critic import Critic
from dareu.trainers.rl._guides import Guides, make_guides, weigh_gold
from dareu.trainers.rl._rollouts import (
    ROW,
    Rollout,
    Sample,
    expected_length,
    make_rollouts,
    rows_for_trl,
    sample,
    stored_rollout,
)
from dareu.trainers.rl._scoring import Slices, scorer, token_scores
from dareu.trainers.rl._table import CompletionsTable
from dareu.trainers.rl.config import DareUConfig
from dareu.trainers.rl.estimators import estimate, find_estimator
from dareu.trainers.shared import SharedMixin, check_room, load_policy

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from dareu.masks import WeightMask
    from dareu.trainers._stopping import Validate
    from dareu.trainers.processes import Measuring


logger = logging.getLogger(__name__)


class DareUTrainer(SharedMixin, CompletionsTable):
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
    num_generations: int
    num_generations_eval: int
    max_completion_length: int
    train_dataset: Any
    processing_class: Any  # the tokenizer
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
        check_room(
            encode_prompts(processing_class, train_dataset["prompt"]),
            args.max_completion_length or 0,
            model,
        )
        per_batch = (args.generation_batch_size or 0) // (args.num_generations or 1)
        if len(train_dataset) < per_batch:  # TRL would drop the only batch, and train on nothing
            raise ValueError(
                f"There are {len(train_dataset)} forget rows, but a generation batch takes {per_batch} prompts: lower "
                "per_device_train_batch_size or steps_per_generation."
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
        self._base = None
        if self.num_gold or self.num_uninformed:
            assert base_model is not None, "guides has looked"
            self._base = Uninformed(base_model, base_tokenizer or processing_class)
        else:
            logger.info(
                "Groups are not guided: %s.",
                "there is no base model" if base_model is None else "they are to be sampled",
            )
        self._guides: Guides | None = None
        reads_pictures = isinstance(processing_class, ProcessorMixin)
        train_dataset = rows_for_trl(train_dataset, reads_pictures)
        if args.rollout_policy == "original" or self._base is not None:
            train_dataset = train_dataset.add_column(ROW, list(range(len(train_dataset))))
        if isinstance(held_out := kwargs.get("eval_dataset"), dict):
            kwargs["eval_dataset"] = {name: rows_for_trl(rows, reads_pictures) for name, rows in held_out.items()}
        elif held_out is not None:
            kwargs["eval_dataset"] = rows_for_trl(held_out, reads_pictures)
        self._estimator = args.estimator()
        self._loss_inputs: dict[str, Any] | None = None
        """What the loss that TRL is computing is computed of; None at any other time."""
        self._rollout: Rollout | None = None
        """The one that TRL is making, for what it calls on the way; None at any other time."""
        self._stored: dict[int, list[Sample]] | None = None
        self.critic: Critic | None = None
        self._barren = BarrenBatches(args.max_completion_length or 0)
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

    def nothing_learnt(self) -> str | None:
        """That no completion ended, or no group had spread, in any generation batch; or as of every trainer."""
        whole = self._moved.moved is not None  # not resumed, so that every batch was seen
        return (self._barren.reason() if whole else None) or super().nothing_learnt()

    @property
    def can_resume_here(self) -> bool:
        """Whether every completion of the last rollout has been used, since checkpoints do not keep them."""
        return bool(self._step % (self.args.steps_per_generation * self.num_iterations) == 0)

    # -- rollouts ----------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self.model.training
        stored = training and self.args.rollout_policy == "original"
        if stored:
            assert self._stored is not None
            rollout = stored_rollout(self, self._stored, inputs)
            if self.critic is not None:
                self.policy_logps(rollout)  # for the values alone: the policy has moved since
        else:
            rollout = self.rollout(inputs, self.guided(inputs) if training else None)
            logps = rollout.output.get("old_per_token_logps")
            if training and logps is None and (self.args.kl_coef or self.critic is not None):
                logps = self.policy_logps(rollout)
            if training and self.args.kl_coef:
                assert logps is not None
                scores, sampled = rollout.scores, rollout.scores.mask
                if self._guides is not None:  # the others are no samples of the policy
                    given = torch.tensor([ids is not None for ids in rollout.given], device=sampled.device)
                    sampled = sampled & ~given[:, None]
                kl = torch.where(sampled, logps - self._original_logps(rollout.output), 0.0)
                self._log_token_mean("kl", kl, sampled)
                rollout.scores = scores._replace(price=self.args.kl_coef * kl)
        if training and self._guides is not None:
            num_tokens = rollout.output["completion_ids"].shape[1]
            tokens = self._guides.tokens(*self._places(inputs), num_tokens, self.accelerator.device)
            rollout.output |= tokens._asdict()
        advantages = self._advantages(rollout)
        if training and not stored:
            self.show_advantages(advantages["advantages"], rollout.output["completion_mask"])
        return rollout.output | advantages

    def guided(self, inputs: Sequence[Mapping[str, Any]]) -> list[list[int] | None]:
        """Of each completion of whole groups its token ids where it is gold or an uninformed answer, else None."""
        return [] if self._guides is None else self._guides.given(*self._places(inputs))

    def _places(self, inputs: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
        """Of each completion the forget row, and its place in its group."""
        first = self.accelerator.process_index * len(inputs)
        return [row[ROW] for row in inputs], [(first + i) % self.num_generations for i in range(len(inputs))]

    def _advantages(self, rollout: Rollout) -> dict[str, Tensor]:
        args, training = self.args, self.model.training
        against_critic = training and self.critic is not None
        tensors, logged = estimate(
            self._estimator if training or self.critic is None else find_estimator("group", {}),
            rollout.scores,
            rollout.values if against_critic else None,
            self.accelerator,
            num_generations=self.num_generations if training else self.num_generations_eval,
            return_mode=args.return_mode,
            causal_returns=args.causal_returns,
            scale_rewards=args.scale_rewards,
            gamma=args.gamma,
            lam=args.lam,
            whiten_advantages=args.whiten_advantages,
        )
        for name, value in logged.items():
            self._metrics["train" if training else "eval"][name].append(value)
        if training:
            flat = 0.0 if self.critic is not None else logged.get("frac_groups_without_spread", 0.0)
            self._barren.see(rollout, flat, self.accelerator)
        return tensors

    @contextmanager
    def _making(self, rollout: Rollout) -> Iterator[None]:
        """Within this block, what TRL calls on the way finds the rollout."""
        self._rollout = rollout
        try:
            yield
        finally:
            self._rollout = None

    def rollout(self, inputs: list[dict[str, Any]], given: list[list[int] | None] | None = None) -> Rollout:
        """Generates and scores.

        Args:
            inputs: Rows of whole groups, over all processes.
            given: Of each completion its token ids, or None where it is sampled; by default all are.
        """
        rollout = Rollout([expected_length(row) for row in inputs], given or [])
        with self._making(rollout):
            rollout.output = super()._generate_and_score_completions(inputs)
        mask = rollout.output["completion_mask"].bool()
        rollout.scores = token_scores(rollout.sequence_rewards, rollout.slices, self.reward_weights, mask)
        return rollout

    def _keep(self, index: int, slices: Slices) -> None:
        assert self._rollout is not None
        self._rollout.slices[index] = slices

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: Any, has_tool_images: Any = False
    ) -> Any:
        assert self._rollout is not None
        generate: Any = super()._generate_single_turn
        if images or multimodal_fields:  # tensors of all prompts, which cannot be parted
            if self._rollout.given:
                raise ValueError(
                    "Groups of prompts with images cannot be guided: set num_gold and num_uninformed to 0."
                )
            with evaluation_mode(self.model), plain_generation_config(self.model):
                return generate(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)
        return sample(self, self._rollout, prompt_ids, num_generations, generate)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        if "owner" in inputs[0]:
            self.describe(owner=[row["owner"] for row in inputs])
        if self.model.training and self._guides is not None:
            self.describe(source=self._guides.sources(*self._places(inputs)))
        gathered: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if gathered.isinf().any():
            row, column = (int(i) for i in gathered.isinf().nonzero()[0])
            raise ValueError(
                f"The reward {self.reward_func_names[column]!r} is infinite for completion {row}: "
                "return a finite number, or None where it does not apply."
            )
        assert self._rollout is not None
        self._rollout.lengths = [len(ids) for ids in completion_ids_list]
        first = self.accelerator.process_index * len(prompts)
        self._rollout.sequence_rewards = gathered[first : first + len(prompts)]
        return gathered

    # -- log-probabilities ---------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's, without dropout where no gradient is wanted; a rollout gets the critic's values with them."""
        # The logps of samples are compared with π_N's and with one another.
        quiet = nullcontext() if torch.is_grad_enabled() else evaluation_mode(self.model)
        if self.critic is None or self._rollout is None:
            with quiet:
                output = self._logps_and_entropies(*args, **kwargs)
            if self._loss_inputs is not None and "is_gold" in self._loss_inputs:
                # Before TRL looks at the advantages
                self._log_token_mean("gold_weight", *weigh_gold(output[0], self._loss_inputs))
            return output
        with quiet, self.critic.watch() as hidden:
            output = self._logps_and_entropies(*args, **kwargs)
        self._rollout.values = self.critic.values(hidden, output[0].shape[1])
        return output

    def _logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **others: Any,
    ) -> Any:
        """TRL's own on a GPU; of texts in our tiles elsewhere, where TRL's hold 4096 tokens and seven arrays."""
        if input_ids.is_cuda or compute_aux_loss or any(other is not None for other in others.values()):
            given = (model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss)
            return super()._get_per_token_logps_and_entropies(*given, **others)
        with self.accelerator.autocast():
            terms = sampled_terms(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                ("logps", "entropy") if compute_entropy else ("logps",),
                batch_size=batch_size or len(input_ids),
                temperature=self.temperature,
            )
        return terms["logps"], terms.get("entropy"), None

    def policy_logps(self, rollout: Rollout) -> Tensor:
        """(B, T) log-probabilities as TRL computes them in the loss, whose ratio they are the denominator of."""
        output = rollout.output
        with torch.no_grad(), self._making(rollout):
            logps: Tensor = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
                torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
                output["completion_ids"].shape[1],
                batch_size=self.args.per_device_train_batch_size,
            )[0]
        return logps

    def _original_logps(self, output: dict[str, Any]) -> Tensor:
        """(B, T) log-probabilities under π_N of the sampled tokens at the sampling temperature, 0 on padding."""
        assert self.original is not None
        with self.original() as model, self.accelerator.autocast():
            size = self.args.per_device_train_batch_size
            return sampled_logps(model, output, batch_size=size, temperature=self.temperature)

    # -- loss --------------------------------------------------------------------------------------------------

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

    def _save_extra(self, folder: str) -> None:
        super()._save_extra(folder)
        if self.critic is not None and self.accelerator.is_main_process:
            self.critic.save(folder)

    def _load_extra(self, folder: str) -> None:
        super()._load_extra(folder)
        if self.critic is not None:
            self.critic.load(folder)

    def _log_token_mean(self, name: str, values: Tensor, mask: Tensor) -> None:
        totals = self.accelerator.reduce(torch.stack([(values * mask).sum(), mask.sum().float()]), reduction="sum")
        self._metrics["train"][name].append((totals[0] / totals[1].clamp(min=1.0)).item())
