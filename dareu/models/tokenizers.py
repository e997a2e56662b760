"""Tokenizers: loading one, what it must have, and training a new one."""

from __future__ import annotations

import copy
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dareu.files import content_hash
from dareu.models._names import first_line, resolve_model_path
from dareu.models.adapters import adapter_base

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def load_base_tokenizer(
    name_or_path: str, tokenizer: PreTrainedTokenizerBase, *, pad_token: str | None = None
) -> PreTrainedTokenizerBase:
    """Loads a base model's tokenizer, which renders messages as the target's does where it has no chat template.

    Args:
        name_or_path: The base model.
        tokenizer: The target's.
        pad_token: See `load_tokenizer`, which raises the same.
    """
    return with_template_of(load_tokenizer(name_or_path, pad_token=pad_token), tokenizer)


def with_template_of(tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer; where it has no chat template, a copy that renders messages as the other does."""
    if tokenizer.chat_template:
        return tokenizer
    rendering = copy.copy(tokenizer)
    rendering.chat_template = other.chat_template
    return rendering


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of tokens with their ids, special tokens and chat template: models that share it count tokens alike."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    specials = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    return content_hash([vocabulary, specials, tokenizer.chat_template])


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


def chat_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool = False
) -> list[int]:
    """The ids of messages under the tokenizer's chat template, which it has.

    Raises:
        ValueError: The template refuses them, as some do with a system message or with roles out of order.
    """
    from jinja2.exceptions import TemplateError

    try:
        encoded: Any = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=True
        )
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise ValueError(
            f"the tokenizer's chat template refuses messages of the roles {roles} ({first_line(error)}): write them in "
            "roles that it takes, or set another chat template."
        ) from error
    return list(encoded["input_ids"])


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, completion_ids: Sequence[int]) -> int:
    """The token with which the template ends the assistant's turn, as `<end_of_turn>` where the end token is `<eos>`.

    It is the first added token behind the text that is no white space; more of either may follow it. A template
    that writes none leaves it to the tokenizer's end token.
    """
    end: int = tokenizer.eos_token_id
    if end in completion_ids[:-1]:
        completion_ids = completion_ids[: list(completion_ids).index(end) + 1]
    added = tokenizer.added_tokens_decoder  # flagged as special or not
    for token in reversed(completion_ids):
        if token in added and added[token].content.strip():
            end = token
        elif str(tokenizer.decode([token])).strip():
            break
    return end


def template_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token with which the chat template ends an answer; without one, the tokenizer's end token."""
    end: int = tokenizer.eos_token_id
    if tokenizer.chat_template is None:
        return end
    system, question = {"role": "system", "content": "Answer."}, {"role": "user", "content": "Who?"}
    for asked in ([question], [system, question]):  # some templates refuse a system message, some want one
        try:
            prompt = chat_ids(tokenizer, asked, add_generation_prompt=True)
            whole = chat_ids(tokenizer, [*asked, {"role": "assistant", "content": "Nobody."}])
        except ValueError:
            continue
        # A token may span the border
        begin = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
        return _end_of_turn(tokenizer, whole[begin:])
    return end


class _Spelled(NamedTuple):
    """Texts that a tokenizer reads as one token wherever they stand."""

    special: list[str]
    marks: list[str]
    """With which turns begin or end, and which are not flagged as special, so that it cannot be told to split them."""


def _spelled(tokenizer: PreTrainedTokenizerBase) -> _Spelled:
    """What it is now; looked up once, since some tokenizers have thousands of added tokens."""
    return _look_up(tokenizer, len(tokenizer), tuple(tokenizer.all_special_tokens), str(tokenizer.chat_template))


@lru_cache(maxsize=4)
def _look_up(tokenizer: PreTrainedTokenizerBase, *depends_on: object) -> _Spelled:
    added = tokenizer.added_tokens_decoder
    special = [token.content for token in added.values() if token.special and token.content]
    others = {number: token.content for number, token in added.items() if not token.special and token.content.strip()}
    written = {template_end(tokenizer), tokenizer.eos_token_id} if others else set()
    if others and tokenizer.chat_template is not None:
        with suppress(ValueError):
            written |= set(chat_ids(tokenizer, [{"role": "user", "content": "Who?"}]))
    return _Spelled(special, [content for number, content in others.items() if number in written])


def special_in(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    """The first special token that a text spells, which the tokenizer would read as itself."""
    return min((token for token in _spelled(tokenizer).special if token in text), key=text.find, default=None)


def mark_in(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    """The first token that a text spells with which turns begin or end, and which is not flagged as special.

    The tokenizer reads it as itself wherever it stands, and cannot be told not to.
    """
    return min((token for token in _spelled(tokenizer).marks if token in text), key=text.find, default=None)


def without_end(tokenizer: PreTrainedTokenizerBase, text: str, end: int) -> str:
    """The text without the tokens at its end that end an answer: the one given, and the tokenizer's end token."""
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(sorted({tokenizer.eos_token_id, end}))]
    while found := next((token for token in tokens if text.rstrip().endswith(token)), None):
        text = text.rstrip().removesuffix(found)
    return text


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
