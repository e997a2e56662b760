"""Loading models, and making a small Llama from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from dareu.models._names import first_line, resolve_model_path
from dareu.models.adapters import adapter_base, attach_adapter, merge_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import LlamaForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_model(name_or_path: str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads a causal language model; an adapter is loaded with its base model and merged into it.

    Args:
        name_or_path: A model folder, an adapter folder, a hub id of either, or `"fictional-base"`.
        dtype: Of the weights, which are read from safetensors only. Float32 is right for training all weights,
            since small updates are lost in bfloat16; see `MaskedAdamW` for training a part of them.

    Raises:
        ValueError: No whole causal language model can be loaded from there, or an adapter not merged into its base.
    """
    path = resolve_model_path(name_or_path)
    try:
        if (base := adapter_base(path)) is not None:
            return merge_adapter(attach_adapter(load_model(base, dtype=dtype), path))
        return _load_whole(path, dtype)
    except Exception as error:  # libraries, configs and files fail in many ways
        raise ValueError(
            f"No causal language model could be loaded from {name_or_path!r}: {first_line(error)}"
        ) from error


def _load_whole(path: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model all of whose weights are in its files; transformers would draw others at random."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
    )
    model: PreTrainedModel = loaded[0]
    missing, mismatched = loaded[1]["missing_keys"], loaded[1]["mismatched_keys"]
    if mismatched:
        name, stored, wanted = min(mismatched)
        raise ValueError(f"{name} is of the shape {list(stored)} in its files, but {list(wanted)} by its config.")
    if missing:
        raise ValueError(f"its files lack {min(missing)}, which there is by its config.")
    return model


def load_adapter(name_or_path: str, *, dtype: torch.dtype = torch.float32) -> PeftModel:
    """Loads an adapter on its base model without merging it, to train on.

    Args:
        name_or_path: An adapter folder or hub id. A base that is an adapter itself is merged.
        dtype: Of the base's weights; see `attach_adapter`.

    Raises:
        ValueError: It is no adapter, or it does not fit the base that it names.
    """
    base = adapter_base(name_or_path)
    if base is None:
        raise ValueError(f"{name_or_path!r} is no adapter: name a folder with an adapter_config.json.")
    return attach_adapter(load_model(base, dtype=dtype), name_or_path)


def load_to_read(name_or_path: str) -> PreTrainedModel:
    """Loads a model that is asked only, neither trained nor saved.

    It is what `load_model` gives; an adapter that cannot be merged stays in the layers of its base, where it says
    the same.

    Raises:
        ValueError: See `load_model`.
    """
    path = resolve_model_path(name_or_path)
    if adapter_base(path) is None:
        return load_model(path)
    model = load_adapter(path)
    try:
        return merge_adapter(model)
    except ValueError:
        if getattr(model.active_peft_config, "alora_invocation_tokens", None):
            raise ValueError(
                f"{name_or_path} is an adapter that acts behind its invocation tokens alone (aLoRA), and cannot be "
                "read as a model: give another one."
            ) from None
        base = cast("PreTrainedModel", model.get_base_model())
        for weight in base.parameters():
            if weight.is_floating_point():  # quantised ones are not
                weight.requires_grad_(True)  # as merged: some metrics ask for gradients
        base.eval()
        return base


def context_length(model: PreTrainedModel | PeftModel | PreTrainedConfig) -> int | None:
    """Most tokens a model, or one of this config, reads at once (`max_position_embeddings`); None for no limit."""
    config: Any = getattr(model, "config", model)
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else int(limit)


def layer_list(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the model's layers, and its attribute with their list.

    They are the largest list of modules, also under PEFT's wrapper.

    Raises:
        ValueError: The model has no list of modules.
    """
    lists = [
        (sum(parameter.numel() for parameter in child.parameters()), parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList)
    ]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of layers: give a model whose decoder has one.")
    return max(lists, key=lambda found: found[0])[1:]


def new_llama(tokenizer: PreTrainedTokenizerBase, *, seed: int = 0, **config: Any) -> LlamaForCausalLM:
    """A randomly initialised Llama with tied embeddings for a tokenizer.

    Args:
        tokenizer: Gives vocabulary and special tokens.
        seed: Of the initial weights; the global random state is left alone.
        config: Fields of `LlamaConfig`, such as `hidden_size`, `num_hidden_layers`, `num_attention_heads`,
            `intermediate_size` and `max_position_embeddings`.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                tie_word_embeddings=True,
                **config,
            )
        )
