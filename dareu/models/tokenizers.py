"""Tokenizers: loading one, what it must have, and training a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dareu.models._names import first_line, resolve_model_path
from dareu.models.adapters import adapter_base

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerBase


def load_tokenizer(name_or_path: str, *, pad_token: str | None = None) -> PreTrainedTokenizerBase:
    """Loads a tokenizer from a model folder, an adapter folder (or the base it names) or a hub id.

    Args:
        name_or_path: What to load.
        pad_token: The token that pads where the tokenizer names none, such as its end token.

    Raises:
        ValueError: The folder holds no tokenizer, the tokenizer has no pad or end token, or not the one that is named.
    """
    from transformers import AutoTokenizer

    path = resolve_model_path(name_or_path)
    try:
        if not (Path(path) / "tokenizer_config.json").exists() and (base := adapter_base(path)) is not None:
            return load_tokenizer(base, pad_token=pad_token)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"No tokenizer could be loaded from {name_or_path!r}: {first_line(error)}") from error
    if tokenizer.pad_token_id is None and pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise ValueError(
                f"pad_token {pad_token!r} is no token of {name_or_path!r}: name one, such as its end token."
            )
        tokenizer.pad_token = pad_token
    check_tokenizer(tokenizer)
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises a `ValueError` with the remedy where the tokenizer lacks an end or a padding token."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "The tokenizer has no end token: set one that the model's vocabulary holds, tokenizer.eos_token = '...'."
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "The tokenizer has no padding token: set tokenizer.pad_token = tokenizer.eos_token, or give a recipe "
            "pad_token (the real end token still counts in the loss)."
        )


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
