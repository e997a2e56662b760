"""What a training run will take of a device's memory, worked out before it is started and without the weights.

Parameters, gradients, optimizer state, the original model and the KV cache follow from shapes; activations are counted
in a dry run of the forward on tensors without data. Nothing is measured, and what a device's libraries take for
themselves and lose between blocks is not in it: leave a tenth of the card free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from dareu.models import layer_list
from dareu.runs._head_bytes import Head
from dareu.weights.entries import COMPACT_UP_TO

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one device.

    Attributes:
        weights: The model's, adapters included.
        gradients: Of all that requires one, selected by a mask or not; they live during an update only.
        optimizer: AdamW's moments, or those of `MaskedAdamW` with its positions or mask.
        original: What remembers π_N.
        judges: Models beside the policy: the reward's classifier, the model that judges fluency.
        rollouts: The KV cache of the completions that are generated at once.
        activations: What autograd keeps of a micro-batch or of its retained rows, which come one after the other:
            whichever takes more together with its logits.
        logits: Of the same of the two: what waits for and comes of the tiles in which logits are made, with the head's
            gradient.
        added: The largest gradient, while it is added to what is there of it.
        gathered: What each of several processes holds whole for a while, see `sharded`; 0 on one.
    """

    weights: int
    gradients: int
    optimizer: int
    original: int
    judges: int
    rollouts: int
    activations: int
    logits: int
    added: int
    gathered: int = 0

    @property
    def total(self) -> int:
        """The peak: what always lives, and the larger of a rollout and an update."""
        always = self.weights + self.optimizer + self.original + self.judges + self.gathered
        update = self.gradients + max(self.activations + self.logits, self.added)
        return always + max(self.rollouts, update)

    def sharded(self, processes: int, model: nn.Module) -> MemoryPlan:
        """The plan of each of several processes under FSDP2, which shards everything but the judges.

        Args:
            processes: Over how many the weights, gradients, state and the original are spread.
            model: The model; two of its layers at a time, and all outside of its layers, are gathered whole.
        """
        if processes == 1:
            return self
        parent, name = layer_list(model)
        layers = [parameter_bytes([layer]) for layer in getattr(parent, name)]
        spread = ("weights", "gradients", "optimizer", "original")
        parts = {name: -(-getattr(self, name) // processes) for name in spread}
        return replace(self, **parts, gathered=parameter_bytes([model]) - sum(layers) + 2 * max(layers))


def empty_model(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model of a config in training mode, on the meta device: shapes, and no memory."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    return model


def memory_plan(
    model: PreTrainedModel | Any,
    *,
    rows: int,
    prompt_tokens: int,
    completion_tokens: int,
    retain_rows: int = 0,
    retain_loss: Literal["kl", "nll", "none"] = "kl",
    rollout_rows: int = 0,
    selected: int | Mapping[str, Tensor] | None = None,
    keeps_original: bool = True,
    autocast: bool = False,
    judges: Iterable[nn.Module] = (),
    whole_logits: bool = False,
    on_gpu: bool = True,
) -> MemoryPlan:
    """The plan of `DareUTrainer`, `UnlearnTrainer` or plain fine-tuning on one device.

    Args:
        model: As `empty_model` gives it, with a PEFT adapter where one is trained; real models do too.
        rows: Rows of a micro-batch (`per_device_train_batch_size`).
        prompt_tokens: Tokens of the longest prompt.
        completion_tokens: Tokens of the longest completion, its end token included.
        retain_rows: Retained rows of a micro-batch.
        retain_loss: What is computed on them.
        rollout_rows: Completions that are generated at once; 0: the method samples none.
        selected: The mask, or how many entries it selects, in all tensors the same share; None: all are trained, or
            an adapter is.
        keeps_original: Whether π_N is needed.
        autocast: Whether bfloat16 is computed in (the Trainer's `bf16`).
        judges: Models that stay on the device beside the policy, as `empty_model` gives them.
        whole_logits: Whether the policy's loss has all logits at once, as fine-tuning does, and a loss of yours that
            asks for `logits`: five float32 arrays of them.
        on_gpu: Whether a method that samples has TRL's tiles of the vocabulary, as it does on a GPU, or ours.

    Raises:
        ValueError: A mask and an adapter are asked for at once.
    """
    adapter = hasattr(model, "peft_config")
    if adapter and selected is not None:
        raise ValueError("A weight mask and LoRA exclude each other: plan for one of them.")
    config = model.config.get_text_config()
    tokens = prompt_tokens + completion_tokens
    retain_rows = 0 if retain_loss == "none" else retain_rows
    kept = {number: activation_bytes(model, number, tokens, autocast=autocast) for number in {rows, retain_rows} - {0}}
    kept[0] = 0
    head = Head.of(model, autocast=autocast)
    if whole_logits:
        policy = 5 * 4 * head.vocab_size * rows * completion_tokens
    else:
        policy = head.trl(rows * tokens) if rollout_rows and on_gpu else head.policy(rows * completion_tokens)
    passes = [(kept[rows], policy + head.seen(rows * tokens))]
    if retain_rows:
        # Under a mask the teacher is the trained model with other values.
        copied = selected is not None
        taken = head.retained(retain_rows * completion_tokens, retain_loss, copied=copied)
        passes.append((kept[retain_rows], taken + head.seen(retain_rows * tokens)))
    activations, logits = max(passes, key=sum)
    trained = [parameter.numel() * parameter.itemsize for parameter in model.parameters() if parameter.requires_grad]
    original = 0
    if keeps_original and not adapter:
        original = parameter_bytes([model])
        if selected is not None:
            number = selected if isinstance(selected, int) else sum(int(mask.sum()) for mask in selected.values())
            original = number * (8 + _itemsize(model))
    return MemoryPlan(
        weights=parameter_bytes([model]),
        gradients=sum(trained),
        optimizer=optimizer_bytes(model, selected),
        original=original,
        judges=parameter_bytes(judges),
        rollouts=kv_cache_bytes(config, rollout_rows, tokens, next(model.parameters()).dtype),
        activations=activations,
        logits=logits,
        added=max(trained),
    )


def parameter_bytes(models: Iterable[nn.Module], *, trained: bool = False) -> int:
    """Bytes of the parameters of models, tied ones once; with `trained`, of those that require a gradient."""
    return sum(p.numel() * p.itemsize for m in models for p in m.parameters() if p.requires_grad or not trained)


def optimizer_bytes(model: nn.Module, selected: int | Mapping[str, Tensor] | None = None) -> int:
    """Bytes of AdamW's state after its first step.

    Two moments in the weights' dtype and a step count a tensor; or, under a mask, of each selected entry two float32
    moments, a 32-bit position, and a float32 master where the weights are smaller. Where a mask selects more than 55 %
    of a tensor, moments and masters are of all its entries, and the mask of a byte each takes the positions' place.

    Args:
        model: Its parameters that require a gradient are trained.
        selected: The mask; or how many entries it selects, of every tensor the same share; None: no mask.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if selected is None:
        return 4 * len(trained) + 2 * parameter_bytes([model], trained=True)
    size = 8 if _itemsize(model) >= 4 else 12
    if isinstance(selected, int):
        total = sum(parameter.numel() for parameter in trained.values())
        dense = selected > COMPACT_UP_TO * total
        return 4 * len(trained) + (total * (size + 1) if dense else selected * (size + 4))
    taken = 0
    for name, parameter in trained.items():
        if count := int(selected[name].sum()):
            dense = count > COMPACT_UP_TO * parameter.numel()
            taken += 4 + (parameter.numel() * (size + 1) if dense else count * (size + 4))
    return taken


def kv_cache_bytes(config: PreTrainedConfig, rows: int, tokens: int, dtype: torch.dtype) -> int:
    """Bytes of keys and values of `rows` sequences of `tokens` tokens in all layers."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    heads = getattr(config, "num_key_value_heads", None) or heads
    return 2 * int(config.num_hidden_layers * heads * size) * rows * tokens * dtype.itemsize


def activation_bytes(model: nn.Module, rows: int, tokens: int, *, autocast: bool = False) -> int:
    """Bytes that autograd keeps of a forward for its backward, weights apart and the vocabulary left out.

    Counted in a dry run with a padding mask, on tensors that have no data. Copies of the weights in bfloat16, which
    autocast makes of float32 weights, count too. Gradient checkpointing is not looked at, and needs less.

    Args:
        model: A causal language model, on any device; the meta device will do.
        rows: Rows of the batch.
        tokens: Tokens of each, padding included.
        autocast: Compute in bfloat16 where autocast does (by the CPU's rules; a GPU's differ in detail).
    """
    parent, name = layer_list(model)
    layers = getattr(parent, name)
    shapes = {tuple((key, p.shape, p.dtype) for key, p in layer.named_parameters()) for layer in layers}
    if len(layers) <= 2 or len(shapes) > 1:
        return _dry_run(model, rows, tokens, autocast=autocast)
    try:  # every further layer keeps what the second does
        counted = []
        for number in (1, 2):
            setattr(parent, name, layers[:number])
            counted.append(_dry_run(model, rows, tokens, autocast=autocast))
    finally:
        setattr(parent, name, layers)
    return counted[0] + (len(layers) - 1) * (counted[1] - counted[0])


def _dry_run(model: nn.Module, rows: int, tokens: int, *, autocast: bool) -> int:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.func import functional_call

    from dareu.models.forward import takes_positions

    state: dict[str, Tensor] = {}
    kept: dict[int, torch.UntypedStorage] = {}  # storages by address, held so that no address is used again
    with FakeTensorMode():
        for named in (model.named_parameters, model.named_buffers):
            for name, tensor in named():
                state[name] = torch.empty(tensor.shape, dtype=tensor.dtype).requires_grad_(tensor.requires_grad)
        own = {tensor.untyped_storage()._cdata for tensor in state.values()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        ids = torch.zeros(rows, tokens, dtype=torch.int64)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False, "logits_to_keep": 1}
        if takes_positions(model):
            batch["position_ids"] = torch.arange(tokens).expand(rows, -1).contiguous()
        saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with saving, torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            functional_call(model, state, (), batch)
        return sum(storage.nbytes() for storage in kept.values())


def _itemsize(model: nn.Module) -> int:
    return next(model.parameters()).itemsize
