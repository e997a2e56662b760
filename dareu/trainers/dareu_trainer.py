"""DareU: policy-gradient unlearning of whose data a model was trained on, on TRL's GRPO loop."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOTrainer

from dareu.data.encoding import encode_prompt
from dareu.data.records import text_of
from dareu.trainers.advantages import group_advantages, running_mean, scale_advantages, token_returns
from dareu.trainers.dareu_config import DareUConfig
from dareu.trainers.logprobs import completion_logits
from dareu.trainers.reference import evaluating
from dareu.trainers.scoring import SliceScorer
from dareu.trainers.unlearning import StopWhenForgotten, UnlearningMixin, Validate, check_prompt_lengths, load_policy

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from dareu.masks import WeightMask


class DareUTrainer(UnlearningMixin, GRPOTrainer):
    """TRL's `GRPOTrainer` with token-level advantages from slice rewards, a mask and a retain term.

    For each prompt of the forget set a group of completions is sampled and every reward scores it, slice by slice
    where it can. A token's reward is the running mean of the slices' scores minus `kl_coef` times the KL to the
    model before unlearning, π_N; its return is taken over the remaining tokens (`return_mode`), and its advantage is
    the return minus the group's mean at the same position. The clipped surrogate is TRL's. The retain term, on
    retained rows, joins the loss.

    Args:
        model: The target: a path, a hub id or a loaded model. It is trained in place.
        reward_funcs: One or more TRL rewards; see `dareu.rewards`.
        args: Options.
        train_dataset: The forget rows, with a `prompt` column; all columns but `prompt` and `completion` go to the
            rewards, and the gold completion does as `reference`.
        retain_dataset: The retained rows, with `prompt` and `completion`.
        mask: The weights that may move; None: all.
        processing_class: The tokenizer; loaded with the model where `model` is a string.
        peft_config: Trains a fresh adapter in place of the weights.
        validate: Measures the model for early stopping; see `UnlearningArguments`.
        callbacks: More Trainer callbacks.
        **kwargs: Other arguments of `GRPOTrainer`.

    Raises:
        ValueError: Before any training, where data, mask, options and model do not go together.
    """

    model: nn.Module
    num_generations: int
    num_generations_eval: int
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
        mask: WeightMask | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        validate: Validate | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs: Any,
    ) -> None:
        model, processing_class = load_policy(model, processing_class, peft_config, args.seed)
        check_prompt_lengths(
            [encode_prompt(processing_class, prompt) for prompt in train_dataset["prompt"]],
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
        self._set_up(
            model,
            processing_class,
            args,
            retain_dataset=retain_dataset,
            mask=mask,
            fresh_adapter=peft_config is not None,
            needs_reference=args.kl_coef > 0 and args.rollout_policy == "current",
            validate=validate,
        )
        if "completion" in train_dataset.column_names:
            # TRL keeps the gold completion from the rewards.
            references = [text_of(completion) for completion in train_dataset["completion"]]
            train_dataset = train_dataset.add_column("reference", references)
        if args.rollout_policy == "original":
            train_dataset = train_dataset.add_column("row", list(range(len(train_dataset))))
        rewards = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        super().__init__(
            model,
            [_wrap(reward, processing_class, args.num_slices) for reward in rewards],
            args,
            train_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            **kwargs,
        )
        if validate is not None:
            self.add_callback(StopWhenForgotten(validate, self._measured))
        self._stored: dict[int, list[dict[str, Tensor]]] | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains; rollouts of the original model are made first, before any checkpoint is loaded."""
        if self.args.rollout_policy == "original" and self._stored is None:
            self.model.train()
            self._stored = self._make_rollouts()
        return super().train(*args, **kwargs)

    # -- rollouts ----------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.args.rollout_policy == "original" and self.model.training:
            return self._stored_rollouts(inputs)
        output = self._rollout(inputs)
        if self.args.kl_coef and self.model.training:
            kl = self._logps(output) - self._logps(output, original=True)
            self._log_token_mean("kl", kl, output["completion_mask"])
            self._token_rewards -= self.args.kl_coef * kl
        output["advantages"] = self._advantages(output["completion_mask"].bool())
        return output

    def _rollout(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Generates and scores; `_token_rewards`, `_terminal` and `_scored` then hold what the rewards said."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        self._spread_rewards(output["completion_mask"].bool())
        return output

    def _stored_rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The completions of π_N for these prompts."""
        assert self._stored is not None
        first = self.accelerator.process_index * len(inputs)
        samples = [self._stored[row["row"]][(first + i) % self.num_generations] for i, row in enumerate(inputs)]
        pad = self._tokenizer.pad_token_id
        prompts = [sample["prompt_ids"] for sample in samples]
        output: dict[str, Any] = {
            "prompt_ids": pad_sequence(prompts, True, pad, "left"),
            "prompt_mask": pad_sequence([torch.ones_like(ids) for ids in prompts], True, 0, "left"),
        }
        for name in ("completion_ids", "completion_mask", "advantages", "old_per_token_logps"):
            output[name] = pad_sequence(
                [sample[name] for sample in samples], True, pad if name == "completion_ids" else 0
            )
        output["ref_per_token_logps"] = output["old_per_token_logps"]
        output["num_items_in_batch"] = self.accelerator.gather(output["completion_mask"].sum()).sum()
        return output

    def _make_rollouts(self) -> dict[int, list[dict[str, Tensor]]]:
        # Every process draws the same completions, so that a group means the same everywhere.
        stored: dict[int, list[dict[str, Tensor]]] = {}
        chunk = max(1, self._train_batch_size * self.args.steps_per_generation // self.num_generations)
        with torch.random.fork_rng():
            torch.manual_seed(self.args.seed)
            for start in range(0, len(self.train_dataset), chunk):
                rows = [self.train_dataset[i] for i in range(start, min(start + chunk, len(self.train_dataset)))]
                inputs = [dict(row) for row in rows for _ in range(self.num_generations)]
                output = self._rollout(inputs)
                output["advantages"] = self._advantages(output["completion_mask"].bool())
                if "old_per_token_logps" not in output:
                    output["old_per_token_logps"] = self._sampling_logps(output)
                for i, row in enumerate(inputs):
                    prompt = output["prompt_mask"][i].bool()
                    length = max(1, int(output["completion_mask"][i].sum()))
                    sample = {"prompt_ids": output["prompt_ids"][i][prompt]}
                    for name in ("completion_ids", "completion_mask", "advantages", "old_per_token_logps"):
                        sample[name] = output[name][i][:length].clone()
                    stored.setdefault(row["row"], []).append(sample)
        return stored

    # -- rewards and advantages --------------------------------------------------------------------------------

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        gathered: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if gathered.isinf().any():
            row, column = (int(i) for i in gathered.isinf().nonzero()[0])
            raise ValueError(
                f"The reward {self.reward_func_names[column]!r} is infinite for completion {row}: "
                "return a finite number, or None where it does not apply."
            )
        first = self.accelerator.process_index * len(prompts)
        self._sequence_rewards = gathered[first : first + len(prompts)]
        return gathered

    def _spread_rewards(self, mask: Tensor) -> None:
        """Lays the weighted scores of this process's completions over their tokens."""
        self._token_rewards = torch.zeros(mask.shape, device=mask.device)
        self._terminal = torch.zeros(len(mask), device=mask.device)
        self._scored = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        for column, (reward, weight) in enumerate(zip(self.reward_funcs, self.reward_weights.tolist(), strict=True)):
            values = self._sequence_rewards[:, column]
            self._scored |= ~values.isnan()
            if not (isinstance(reward, SliceScorer) and reward.dense):
                self._terminal += weight * values.nan_to_num(0.0)
                continue
            for row, (scores, ends) in enumerate(zip(reward.scores, reward.ends, strict=True)):
                if scores is not None:
                    self._token_rewards[row, : ends[-1]] += weight * running_mean(scores, ends).to(mask.device)

    def _advantages(self, mask: Tensor) -> Tensor:
        """(B, T) advantages of this process's completions, against the mean of the gathered groups."""
        returns = token_returns(self._token_rewards, self._terminal, mask, self.args.return_mode)
        group_size = self.num_generations if self.model.training else self.num_generations_eval
        gather = self.accelerator.gather
        all_returns = gather(self.accelerator.pad_across_processes(returns.contiguous(), dim=1))
        all_mask = gather(self.accelerator.pad_across_processes(mask.contiguous(), dim=1))
        advantages = group_advantages(all_returns, all_mask, gather(self._scored), group_size)
        flat = (advantages.view(-1, group_size * advantages.shape[1]).abs() < 1e-6).all(1)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["frac_groups_without_spread"].append(flat.float().mean().item())
        advantages = scale_advantages(advantages, all_mask, self.args.scale_rewards, group_size)
        first = self.accelerator.process_index * len(mask)
        return advantages[first : first + len(mask), : mask.shape[1]].contiguous()

    def _logps(self, rollout: dict[str, Any], *, original: bool = False) -> Tensor:
        """(B, T) log-probabilities of the sampled tokens at the sampling temperature, 0 on padding.

        Of the model as it is, or of π_N, by one way of computing them and without dropout, so that their difference
        is 0 before the first update.
        """
        ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1)
        attention_mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
        completion_mask = rollout["completion_mask"].bool()
        labels = ids.masked_fill(attention_mask == 0, -100)
        labels[:, : rollout["prompt_ids"].shape[1]] = -100
        logps = torch.zeros(completion_mask.shape, device=ids.device)
        size = self.args.per_device_train_batch_size
        assert not original or self.reference is not None
        with self.reference() if original and self.reference else evaluating(self.model) as model:
            for part in (slice(start, start + size) for start in range(0, len(ids), size)):
                if not completion_mask[part].any():  # cut off, all of them
                    continue
                batch = {"input_ids": ids[part], "attention_mask": attention_mask[part], "labels": labels[part]}
                with self.accelerator.autocast():
                    scored = completion_logits(model, batch)
                scored = scored._replace(logits=scored.logits / self.temperature)
                logps[part][completion_mask[part]] = scored.logps()
        return logps

    def _sampling_logps(self, rollout: dict[str, Any]) -> Tensor:
        """(B, T) log-probabilities as TRL computes them in the loss, whose ratio they are the denominator of."""
        with torch.no_grad():
            logps: Tensor = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1),
                torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1),
                rollout["completion_ids"].shape[1],
                batch_size=self.args.per_device_train_batch_size,
            )[0]
        return logps

    # -- loss --------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        batch = self._prepare_retain()
        # With stored rollouts the KL to π_N is a loss term: TRL's k3 estimate on the stored log-probabilities.
        self.beta = self.args.kl_coef if "ref_per_token_logps" in inputs else 0.0
        try:
            loss: Tensor = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        finally:
            self.beta = 0.0  # TRL would look for a reference model of its own while it samples
        if batch is None:
            return loss
        penalty = self._retain_penalty(model, batch)
        self._metrics["train"][f"retain_{self.args.retain_loss}"].append(
            self.accelerator.gather(penalty.detach() / self.args.retain_coef).mean().item()
        )
        # TRL's loss comes scaled for accumulation, so this term must be too.
        return loss + penalty / self.current_gradient_accumulation_steps

    def _log_token_mean(self, name: str, values: Tensor, mask: Tensor) -> None:
        totals = self.accelerator.reduce(torch.stack([(values * mask).sum(), mask.sum().float()]), reduction="sum")
        self._metrics["train"][name].append((totals[0] / totals[1].clamp(min=1.0)).item())


def _wrap(reward: Any, tokenizer: PreTrainedTokenizerBase, num_slices: int) -> Any:
    """Rewards that are models, paths or coroutines are TRL's own affair and score sequences."""
    if isinstance(reward, str | nn.Module) or inspect.iscoroutinefunction(reward):
        return reward
    if inspect.iscoroutinefunction(type(reward).__call__):
        return reward
    if not callable(reward):
        raise ValueError(f"A reward must be callable, a model or its path, not {type(reward).__name__}.")
    return SliceScorer(reward, tokenizer, num_slices)
