"""Task vectors: what fine-tuning on the forget rows adds to the weights is subtracted from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dareu.methods._checks import check_positive
from dareu.methods._method import Method
from dareu.methods._own_retain import OwnRetainConfig
from dareu.trainers.loss_based import UnlearnTrainer
from dareu.weights.entries import flat_part, part_like

if TYPE_CHECKING:
    from peft import PeftConfig


def task_vector(logps: Tensor, lengths: Tensor) -> Tensor:
    """NLL_mean of the forget answers: what is learnt before it is subtracted (Ilharco et al. 2023, arXiv 2212.04089).

    Args:
        logps: (B,) summed log-probabilities of the answers' tokens.
        lengths: (B,) their token counts.

    Returns:
        A scalar ≥ 0, averaged over records.
    """
    return -(logps / lengths).mean()


def negated(original: Tensor, tuned: Tensor, *, alpha: float) -> Tensor:
    """θ_o − α (θ_ft − θ_o), computed in float32 at least.

    Args:
        original: θ_o, weights before fine-tuning, of any shape.
        tuned: θ_ft, the same after it.
        alpha: How far to go, > 0.

    Returns:
        A new tensor of `tuned`'s dtype and device.
    """
    dtype = torch.promote_types(tuned.dtype, torch.float32)
    start = original.to(tuned.device, dtype)
    return (start - alpha * (tuned.to(dtype) - start)).to(tuned.dtype)


@dataclass
class TaskVectorConfig(OwnRetainConfig):
    """Options of task vector negation."""

    alpha: float = field(default=1.0, metadata={"help": "How many times what was learnt is subtracted, > 0."})

    def check(self) -> None:
        """Raises `ValueError` for options that cannot be."""
        super().check()
        check_positive("alpha", self.alpha)
        if self.retain_batch_size is not None:
            raise ValueError("task_vector looks at no retained rows: leave retain_batch_size out.")
        if self.validation_steps or self.stop_forget_attribution is not None or self.stop_fluency_nll is not None:
            raise ValueError(
                "task_vector learns the forget rows until its last update and subtracts them only then, so that no "
                "judge can tell when to stop: leave validation_steps, stop_forget_attribution, stop_fluency_nll and "
                "stop_at_base_level out."
            )
        if self.load_best_model_at_end:
            raise ValueError(
                "task_vector subtracts what its last update ends with: leave load_best_model_at_end out, which would "
                "take the state that has learnt the forget rows least."
            )
        if self.deepspeed_plugin is not None:
            raise ValueError("task_vector does not train under DeepSpeed: use FSDP2, DDP or one process.")


class TaskVectorTrainer(UnlearnTrainer):
    """Fine-tunes on the forget rows, and when training ends sets θ = θ_o − alpha · (θ_ft − θ_o).

    That is done once, at the end of `train`, and to the model in memory: checkpoints hold θ_ft, so that a training that
    goes on from one, also from that of its last update, ends with the same weights. Entries outside a mask keep their
    bits. A fresh LoRA adapter stands for θ_ft − θ_o and is scaled by −alpha, by its B alone. Of an adapter that is
    itself the target, θ are its own tensors.

    The arguments are those of `UnlearnTrainer`; the originals of what is trained are kept in the host's memory.

    Raises:
        ValueError: A fresh adapter has more than LoRA's two factors, or what `UnlearnTrainer` raises.
    """

    def __init__(self, *args: Any, peft_config: PeftConfig | None = None, **options: Any) -> None:
        super().__init__(*args, peft_config=peft_config, **options)
        trained = {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        self._factors: list[str] = []
        self._start: dict[str, Tensor] = {}
        if peft_config is not None:
            self._factors = _negatable(trained)
        else:
            self._start = {name: parameter.detach().to("cpu", copy=True) for name, parameter in trained.items()}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `UnlearnTrainer` does, then subtracts what was learnt."""
        result = super().train(*args, **kwargs)
        self._subtract()
        return result

    @torch.no_grad()
    def _subtract(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self._factors:
                parameter.mul_(-self.args.alpha)
            elif name in self._start:
                start = part_like(parameter, self._start[name]).flatten()
                with flat_part(parameter) as tuned:
                    result = negated(start, tuned, alpha=self.args.alpha)
                    if self.mask is not None:
                        selected = part_like(parameter, self.mask[name]).flatten().to(tuned.device)
                        result = torch.where(selected, result, tuned)
                    tuned.copy_(result)


def _negatable(trained: dict[str, torch.nn.Parameter]) -> list[str]:
    """The names of LoRA's B, in which the product of its factors is linear."""
    kinds = {name: next((part for part in name.split(".") if part.startswith("lora_")), "") for name in trained}
    for name, kind in kinds.items():
        if kind not in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"):
            raise ValueError(
                f"task_vector negates LoRA's two factors alone, and {name} is neither: leave modules_to_save, use_dora "
                "and other kinds of adapters out."
            )
    return [name for name, kind in kinds.items() if kind.endswith("_B")]


TASK_VECTOR = Method(TaskVectorTrainer, TaskVectorConfig, task_vector)
