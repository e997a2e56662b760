"""Rollouts as TRL's loop asks for them: sampled or given completions, what rewards say of them, and advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import ProcessorMixin

from dareu.data.encoding import encode_prompt
from dareu.models.forward import evaluation_mode
from dareu.models.generation import plain_generation_config
from dareu.trainers.rl._barren import BarrenBatches
from dareu.trainers.rl._guides import Guides
from dareu.trainers.rl._logps_trainer import LogpsTrainer
from dareu.trainers.rl._rollouts import ROW, Rollout, Sample, expected_length, sample, stored_rollout
from dareu.trainers.rl._scoring import Slices, token_scores
from dareu.trainers.rl.estimators import Estimator, estimate, find_estimator


class RolloutTrainer(LogpsTrainer):
    """A `GRPOTrainer` whose completions may be given or stored, and whose advantages are those of tokens."""

    processing_class: Any  # the tokenizer
    num_generations: int
    num_generations_eval: int
    _guides: Guides | None
    _stored: dict[int, list[Sample]] | None
    _estimator: Estimator
    _barren: BarrenBatches

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

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        """As TRL's, but that nothing is sampled behind an end token, which some tokenizers append to strings."""
        if isinstance(prompts[0], str) and not isinstance(self.processing_class, ProcessorMixin):
            return [encode_prompt(self.processing_class, prompt) for prompt in prompts], None, {}
        return super()._tokenize_prompts(prompts)

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
