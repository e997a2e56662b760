"""Texts as tokens that remember at which characters they may be cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase


class TokenizedText(NamedTuple):
    """A text's token ids, and where in the text they end."""

    ids: list[int]
    ends: list[int]
    """`ends[k]` is the character offset at which the first k tokens end; one more entry, the text's length,
    stands for all tokens again, whatever follows the last of them."""

    def snap(self, end: int) -> tuple[int, int]:
        """The last token border at or before character `end`, as (tokens, characters) before it."""
        border = bisect_right(self.ends, end) - 1
        return min(border, len(self.ids)), self.ends[border]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None = None
) -> list[TokenizedText]:
    """Tokenises without special tokens, keeping the first `max_tokens`; one that a text spells is text."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    return [
        # Tokens of a part of a character all end after it: a running maximum leaves one border there.
        TokenizedText(ids[:max_tokens], [*accumulate((e for _, e in spans[:max_tokens]), max, initial=0), len(text)])
        for text, ids, spans in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
