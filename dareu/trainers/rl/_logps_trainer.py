"""Log-probabilities of completions under the policy and under the model before unlearning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dareu.models.forward import evaluation_mode, sampled_logps, sampled_terms
from dareu.trainers.rl._guides import weigh_gold
from dareu.trainers.rl._rollouts import Rollout
from dareu.trainers.rl._table import CompletionsTable

if TYPE_CHECKING:
    from dareu.trainers.rl._critic import Critic


class LogpsTrainer(CompletionsTable):
    """A `GRPOTrainer` that takes log-probabilities in our tiles, without dropout and with the critic's values."""

    model: nn.Module
    args: Any  # a DareUConfig
    original: Any
    critic: Critic | None
    _loss_inputs: dict[str, Any] | None
    """What the loss that TRL is computing is computed of; None at any other time."""
    _rollout: Rollout | None
    """The one that TRL is making, for what it calls on the way; None at any other time."""

    @contextmanager
    def _making(self, rollout: Rollout) -> Iterator[None]:
        """Within this block, what TRL calls on the way finds the rollout."""
        self._rollout = rollout
        try:
            yield
        finally:
            self._rollout = None

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's, without dropout where no gradient is wanted; a rollout gets the critic's values with them."""
        # The logps of samples are compared with π_N's and with one another.
        quiet = nullcontext() if torch.is_grad_enabled() else evaluation_mode(self.model)
        if self.critic is None or self._rollout is None:
            with quiet:
                output = self._logps_and_entropies(*args, **kwargs)
            if self._loss_inputs is not None and "is_gold" in self._loss_inputs:
                # Before TRL looks at the advantages
                weighed = weigh_gold(output[0], self._loss_inputs, self.args.gold_beta)
                self._log_token_mean("gold_weight", *weighed)
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

    def _log_token_mean(self, name: str, values: Tensor, mask: Tensor) -> None:
        totals = self.accelerator.reduce(torch.stack([(values * mask).sum(), mask.sum().float()]), reduction="sum")
        self._metrics["train"][name].append((totals[0] / totals[1].clamp(min=1.0)).item())
