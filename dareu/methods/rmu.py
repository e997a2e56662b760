"""RMU: hidden states of forget texts are steered to a random direction, those of retained texts are held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dareu.masks.patterns import chosen_parameters
from dareu.methods._checks import check_not_negative, check_positive
from dareu.methods._method import Method
from dareu.methods._own_retain import OwnRetainConfig, needed_rows
from dareu.models import layer_list
from dareu.trainers.loss_based import UnlearnTrainer
from dareu.trainers.original import original_policy
from dareu.trainers.prepared import retain_term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dareu.masks import WeightMask
    from dareu.trainers.prepared import Prepared


def rmu(hidden: Tensor, target: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean squared error of hidden states, for both terms of RMU (Li et al. 2024, arXiv 2403.03218).

        L = MSE(h_l(x_f), c·u) + α · MSE(h_l(x_r), h_l^N(x_r))

    The target is c·u on forget texts, u a fixed unit vector, and the states of the model before unlearning on retained
    ones. The error is averaged over the features and the real tokens of each text, then over texts. All tokens but
    padding count, those of the prompt too: the method changes what the model makes of a text, not what it answers.

    Args:
        hidden: (B, T, H) outputs of decoder layer l.
        target: (B, T, H), or (H,) for all tokens.
        attention_mask: (B, T), 1 on real tokens; a row has one at least.

    Returns:
        A scalar ≥ 0.
    """
    real = attention_mask.bool()
    rows = real.nonzero()[:, 0]
    # Taken out, not multiplied by 0: states of padding may be NaN.
    errors = (hidden[real] - target.expand_as(hidden)[real]).square().mean(-1)
    sums = torch.zeros(len(hidden), dtype=errors.dtype, device=errors.device).index_add(0, rows, errors)
    return (sums / real.sum(1)).mean()


def control_vector(size: int, seed: int) -> Tensor:
    """u: drawn uniformly from [0, 1) per feature and scaled to length 1, as in the paper's code; float32 (size,).

    The draw has a generator of its own, so that runs of the same seed share the vector whatever else they draw.
    """
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    unit: Tensor = drawn / drawn.norm()
    return unit


@dataclass
class RMUConfig(OwnRetainConfig):
    """Options of RMU; the defaults are the paper's for Zephyr-7B."""

    learning_rate: float = field(default=5e-5, metadata={"help": "The initial learning rate."})
    layer: int = field(
        default=7,
        metadata={"help": "The decoder layer whose output is steered, from 0; it and the two before learn."},
    )
    steering_coef: float = field(default=6.5, metadata={"help": "Length c > 0 of the states that are steered to."})
    alpha: float = field(
        default=1200.0, metadata={"help": "Weight ≥ 0 of the retained texts' error; 0: they are not looked at."}
    )
    control_seed: int = field(
        default=0, metadata={"help": "Seed of the random direction, which parts that are merged have to share."}
    )
    trained_modules: str = field(
        default="mlp.down_proj",
        metadata={
            "help": "Shell pattern over the names of modules and parameters in a layer: what is trained, the MLP's "
            "output. 'mlp.c_proj' for GPT-2, 'mlp.dense_4h_to_h' for GPT-NeoX, 'mlp.fc2' for Phi."
        },
    )

    def check(self) -> None:
        """Raises `ValueError` for options that cannot be."""
        super().check()
        if self.layer < 0:
            raise ValueError(f"layer is {self.layer}: give the number of a decoder layer, counted from 0.")
        check_positive("steering_coef", self.steering_coef)
        check_not_negative("alpha", self.alpha)
        if self.deepspeed_plugin is not None:
            raise ValueError("RMU does not train under DeepSpeed: use FSDP2, DDP or one process.")

    def check_layers(self, num_layers: int) -> None:
        """Raises `ValueError` where the layer to steer is beyond the model's `num_layers`."""
        if self.layer >= num_layers:
            raise ValueError(f"layer is {self.layer}, but the model has {num_layers}: give 0 to {num_layers - 1}.")


class RMUTrainer(UnlearnTrainer):
    """Minimises forget_coef · MSE(h_l(x_f), c·u) + alpha · MSE(h_l(x_r), h_l^N(x_r)); see `rmu`.

    h_l is the output of decoder layer l, taken by a hook. Only the modules of `trained_modules` in layers l−2 to l are
    trained, of a model with LoRA their adapters: all else stops requiring gradients, so that no optimizer, mask or
    wrapper sees it. Under a mask the entries move that are selected and lie in those modules. π_N is remembered by
    the original values of what is trained.

    The arguments are those of `UnlearnTrainer`; the loss may ask for `hidden`, `target` and `attention_mask`.

    Raises:
        ValueError: The model has no such layer or no such modules, the mask selects nothing in them, or what
            `UnlearnTrainer` raises.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        parent, name = layer_list(self.model)
        self._layer: nn.Module = getattr(parent, name)[self.args.layer]
        config: Any = self.model.config
        size = config.get_text_config().hidden_size
        self._control = self.args.steering_coef * control_vector(size, self.args.control_seed)

    @classmethod
    def invented_tensors(cls, vocab_size: int) -> dict[str, Tensor]:
        """`hidden`, `target` and `attention_mask` of two invented records of one and two tokens."""
        return {
            "hidden": torch.zeros(2, 2, 4),
            "target": torch.zeros(4),
            "attention_mask": torch.tensor([[1, 0], [1, 1]]),
        }

    @classmethod
    def prepare(
        cls,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        *,
        retain_dataset: Dataset | None,
        mask: WeightMask | None,
        fresh_adapter: bool,
        **options: Any,
    ) -> Prepared:
        """As `UnlearnTrainer` does; all but what RMU trains stops requiring gradients, and π_N is of that alone."""
        assert isinstance(args, RMUConfig)
        args.check()
        retained = needed_rows(retain_dataset, "RMU") if args.alpha > 0 else None
        trained = _restrict(model, args)
        prepared = super().prepare(
            model,
            tokenizer,
            args,
            retain_dataset=retain_dataset,
            mask=mask,
            fresh_adapter=fresh_adapter,
            **options,
        )
        kept = {
            name: torch.ones_like(p, dtype=torch.bool) if mask is None else mask[name] for name, p in trained.items()
        }
        if not any(bool(selected.any()) for selected in kept.values()):
            raise ValueError(
                f"The mask selects no entry of what RMU trains, such as {next(iter(kept))!r}: make one with those "
                "weights in its scope, or choose another layer."
            )
        if retained is None:
            return prepared
        original = original_policy(model, kept, fresh_adapter=fresh_adapter)
        # Its batches are taken as they are; what π_N says of them is another matter here
        return prepared._replace(
            original=original, retain=retain_term(model, tokenizer, args, retained, "nll", original)
        )

    def _hidden(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The layer's output on a batch: (B, T, H), float32 at least."""
        seen: list[Tensor] = []
        hook = self._layer.register_forward_hook(
            lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
        try:
            model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                logits_to_keep=1,  # nobody reads them
                use_cache=False,
            )
        finally:
            hook.remove()
        (hidden,) = seen
        return hidden.to(torch.promote_types(hidden.dtype, torch.float32))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The weighted sum of both errors on one micro-batch."""
        retained = self._prepare_retain()
        if retained is not None:
            assert self.original is not None
            with self.original() as teacher, self.accelerator.autocast():
                target = self._hidden(teacher, retained.inputs)
        hidden = self._hidden(model, inputs)
        self._control = self._control.to(hidden.device)
        tensors = {"hidden": hidden, "target": self._control, "attention_mask": inputs["attention_mask"]}
        forget = self._forget(tensors)
        loss: Tensor = self.args.forget_coef * self._share(inputs) * forget
        logged = {"forget_loss": forget}
        if retained is not None:
            held = rmu(self._hidden(model, retained.inputs), target, retained.inputs["attention_mask"])
            logged["retain_hidden"] = held
            loss = loss + self.args.alpha * held
        self._note(model, logged)
        return loss


def _restrict(model: nn.Module, args: RMUConfig) -> dict[str, nn.Parameter]:
    """What is left to be trained, by name; nothing else requires a gradient."""
    parent, name = layer_list(model)
    layers = list(getattr(parent, name))
    args.check_layers(len(layers))
    first = max(0, args.layer - 2)
    where = f"the modules {args.trained_modules!r} of layers {first} to {args.layer}"
    try:
        chosen = [chosen_parameters(layer, [args.trained_modules]) for layer in layers[first : args.layer + 1]]
    except ValueError as error:
        raise ValueError(
            f"RMU trains {where}, which this model does not have: set trained_modules to its MLP's output, "
            "such as 'mlp.c_proj' (GPT-2), 'mlp.dense_4h_to_h' (GPT-NeoX) or 'mlp.fc2' (Phi)."
        ) from error
    wanted = {id(parameter) for part in chosen for parameter in part.values() if parameter.requires_grad}
    if not wanted:
        raise ValueError(f"RMU trains {where}, which are frozen here: give them an adapter by lora_target_modules.")
    trained = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in wanted)
        if parameter.requires_grad:
            trained[name] = parameter
    return trained


RMU = Method(RMUTrainer, RMUConfig, rmu)
