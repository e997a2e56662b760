"""Loading models and tokenizers, and making a small Llama from scratch."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft import PeftModel
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

#: The name under which the shipped base model of the fictional world is asked for.
BASE_MODEL = "fictional-base"


def resolve_model_path(name_or_path: str) -> str:
    """The path of the shipped base model for `"fictional-base"`; any other name or path as it is."""
    if name_or_path != BASE_MODEL:
        return name_or_path
    return str(resources.files("dareu") / "base_model")


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """Loads a tokenizer from a model folder, an adapter folder (or the base it names) or a hub id.

    Raises:
        ValueError: The folder holds no tokenizer, or the tokenizer has no pad or end token.
    """
    from transformers import AutoTokenizer

    from dareu.data.encoding import check_tokenizer

    path = resolve_model_path(name_or_path)
    adapter = Path(path) / "adapter_config.json"
    if adapter.exists() and not (Path(path) / "tokenizer_config.json").exists():
        return load_tokenizer(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"No tokenizer could be loaded from {name_or_path!r}: {_first_line(error)}") from error
    check_tokenizer(tokenizer)
    return tokenizer


def load_model(name_or_path: str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads a causal language model; an adapter folder is loaded with its base model and merged into it.

    Args:
        name_or_path: A model folder, an adapter folder, a hub id, or `"fictional-base"`.
        dtype: Of the weights, which are read from safetensors only. Float32 is right for training all or masked
            weights (small updates are lost in bf16).

    Raises:
        ValueError: Nothing there can be loaded as a causal language model.
    """
    from transformers import AutoModelForCausalLM

    path = resolve_model_path(name_or_path)
    adapter = Path(path) / "adapter_config.json"
    try:
        if not adapter.exists():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True)
            return model
        from peft import PeftModel

        if Path(path).is_dir() and not (Path(path) / "adapter_model.safetensors").exists():
            raise ValueError("the adapter has no adapter_model.safetensors.")
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        merged = PeftModel.from_pretrained(load_model(base, dtype=dtype), path).merge_and_unload()
        model = merged
        return model
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"No causal language model could be loaded from {name_or_path!r}: {_first_line(error)}"
        ) from error


def context_length(model: PreTrainedModel | PeftModel) -> int | None:
    """Most tokens the model may read at once (`max_position_embeddings`), None where it states no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else int(limit)


def new_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Trains a byte-level BPE tokenizer with the special tokens `<pad>`, `<s>` and `</s>`.

    Every text begins with `<s>`; pad and end token differ.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )


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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
