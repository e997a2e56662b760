"""SCRUB: updates alternate between leaving the original model on forget answers and obeying it on retained ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dareu.methods._checks import check_not_negative
from dareu.methods._method import Method
from dareu.methods._own_retain import OwnRetainConfig, needed_rows
from dareu.models.forward import completion_predictions, completion_terms
from dareu.trainers.loss_based import UnlearnTrainer
from dareu.trainers.prepared import retain_term
from dareu.trainers.retain import stream_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dareu.models.tiles import Predictions
    from dareu.trainers.prepared import Prepared


def scrub(kl: Tensor) -> Tensor:
    """−KL(π_N ‖ π) on forget answers, averaged over records: SCRUB's max step (Kurmanji et al. 2023, arXiv 2302.09880).

    Args:
        kl: (B,) divergences averaged over each answer's tokens.

    Returns:
        A scalar ≤ 0; 0 before the first update, where its gradient is 0 too.
    """
    return -kl.mean()


def scrub_retain(kl: Tensor, nll: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """α · KL(π_N ‖ π) + γ · NLL_mean on retained answers, averaged over records: SCRUB's min step.

    Args:
        kl: (B,) divergences averaged over each answer's tokens.
        nll: (B,) negative log-probabilities averaged likewise.
        alpha: Weight of the divergence.
        gamma: Weight of the task loss.

    Returns:
        A scalar ≥ 0.
    """
    return (alpha * kl + gamma * nll).mean()


@dataclass
class ScrubConfig(OwnRetainConfig):
    """Options of SCRUB, two of them by the paper's names; the paper has other values for each of its data sets."""

    alpha: float = field(default=1.0, metadata={"help": "Weight ≥ 0 of the KL to the original model on retained rows."})
    gamma: float = field(default=1.0, metadata={"help": "Weight > 0 of the NLL on retained rows."})
    ascent_share: float = field(
        default=0.5,
        metadata={
            "help": "First share of the updates, in (0, 1], within which every other one ascends on forget rows; all "
            "others descend on retained rows."
        },
    )

    def check(self) -> None:
        """Raises `ValueError` for options that cannot be."""
        super().check()
        check_not_negative("alpha", self.alpha)
        if not self.gamma > 0:
            raise ValueError(
                f"gamma is {self.gamma}: give a number > 0, for both divergences are flat at the original model, which "
                "nothing else would ever leave."
            )
        if not 0 < self.ascent_share <= 1:
            raise ValueError(f"ascent_share is {self.ascent_share}: give a number in (0, 1].")


class ScrubTrainer(UnlearnTrainer):
    """Alternates between updates of two kinds; see `scrub`.

    Updates are counted from 1. An even one within the first `ascent_share` of all minimises
    forget_coef · −KL(π_N ‖ π) on forget rows; any other minimises alpha · KL(π_N ‖ π) + gamma · NLL on retained rows.
    The paper has whole epochs of each kind, the max epochs first and the min epochs going on after them; here the first
    update descends, for at π_N the gradient of the divergence is 0, and only the NLL leads away from it. Divergences go
    over the whole vocabulary and are averaged over each answer's tokens, then over records. All micro-steps of an
    update are of its kind. Those that ascend take the forget rows as a stream of whole batches, since of a pass that
    ends in a short one, it might be always theirs.

    The arguments are those of `UnlearnTrainer`; the loss may ask for `kl`.

    Raises:
        ValueError: There are no retained rows, or what `UnlearnTrainer` raises.
    """

    @classmethod
    def invented_tensors(cls, vocab_size: int) -> dict[str, Tensor]:
        """`kl` of two invented records."""
        return {"kl": torch.zeros(2)}

    @classmethod
    def prepare(
        cls,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        *,
        retain_dataset: Dataset | None,
        **options: Any,
    ) -> Prepared:
        """As `UnlearnTrainer` does; π_N and the retained rows are always there."""
        assert isinstance(args, ScrubConfig)
        args.check()
        retained = needed_rows(retain_dataset, "SCRUB")
        options["needs_original"] = True
        prepared = super().prepare(model, tokenizer, args, retain_dataset=retained, **options)
        return prepared._replace(retain=retain_term(model, tokenizer, args, retained, "kl", prepared.original))

    def _ascends(self) -> bool:
        """Whether the update that is being made ascends."""
        update = self.state.global_step + 1
        return update % 2 == 0 and update <= self.args.ascent_share * self.state.max_steps

    def _forget_batch(self) -> dict[str, Tensor]:
        """The forget rows of this micro-step; those of updates that descend are passed over."""
        step = self.micro_steps * self.accelerator.num_processes + self.accelerator.process_index
        rows = stream_rows(len(self._records), self.args.per_device_train_batch_size, step, self.args.seed)
        batch = self._collator([self._records[row] for row in rows])
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The loss of this update's kind on one micro-batch."""
        assert self.original is not None
        if self._ascends():
            batch = self._forget_batch()
            with self.original() as teacher_model, self.accelerator.autocast():
                teacher = completion_predictions(teacher_model, batch)
            (kl,) = _per_record(model, batch, teacher, ("kl",))
            forget = self._forget({"kl": kl})
            self._note(model, {"forget_kl": kl.mean()})
            loss: Tensor = self.args.forget_coef * forget
            return loss
        retained = self._prepare_retain()
        assert retained is not None and retained.teacher is not None
        kl, logps = _per_record(model, retained.inputs, retained.teacher, ("kl", "logps"))
        nll = -logps
        self._note(model, {"retain_kl": kl.mean(), "retain_nll": nll.mean()})
        return scrub_retain(kl, nll, alpha=self.args.alpha, gamma=self.args.gamma)


def _per_record(
    model: nn.Module, batch: Mapping[str, Tensor], teacher: Predictions, names: Sequence[str]
) -> list[Tensor]:
    """Terms of the model's predictions, averaged over each record's answer tokens: (B,) each."""
    scored = completion_terms(model, batch, names, teacher=teacher)
    return [scored.row_sum(scored.terms[name]) / scored.lengths() for name in names]


SCRUB = Method(ScrubTrainer, ScrubConfig, scrub)
