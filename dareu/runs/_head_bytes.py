"""Bytes of what a loss makes at a model's head, where logits are made in tiles."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

from dareu.models.tiles import TILE_ELEMENTS

#: Of TRL's tiles on a GPU: tokens by vocabulary.
_TRL_TILE = (4096, 32768)


class Head(NamedTuple):
    """The shapes of a model's head and how it is computed."""

    vocab_size: int
    size: int
    """Of a hidden state."""
    itemsize: int
    """Of the weights, and of hidden states."""
    casts: bool
    """Whether autocast makes 16-bit copies of float32 weights."""
    trained: bool

    @classmethod
    def of(cls, model: Any, *, autocast: bool) -> Head:
        """The head of a causal language model."""
        weight = model.get_output_embeddings().weight
        half = weight.dtype in (torch.bfloat16, torch.float16)
        vocab_size, size = weight.shape
        return cls(vocab_size, size, weight.itemsize, autocast and not half, weight.requires_grad)

    def seen(self, tokens: int) -> int:
        """The hidden states of all tokens read: where the head is frozen, autograd keeps none, but they are there."""
        return 0 if self.trained else self._states(tokens, 1)

    def policy(self, tokens: int) -> int:
        """Of log-probabilities of so many tokens that a loss-based method differentiates."""
        return self._states(tokens, 3) + self._copies(tokens, 1) + self._gradient() + self._tiles(tokens, 1)

    def retained(self, tokens: int, loss: Literal["kl", "nll", "none"], *, copied: bool) -> int:
        """Of the retain term on so many tokens.

        Args:
            tokens: Of all retained answers of a micro-batch.
            loss: What is computed on them.
            copied: Whether the teacher's head is a part of the trained model with other values, so that something of it
                has to be kept: the head, or the teacher's logits where these are smaller.
        """
        if loss != "kl":
            return self.policy(tokens)
        item = 2 if self.casts else self.itemsize
        kept = min(item * self.size, 4 * tokens) * self.vocab_size if copied else 0
        tiles = self._tiles(tokens, 3)
        return self._states(tokens, 4) + self._copies(tokens, 2) + self._gradient() + kept + tiles

    def trl(self, tokens: int) -> int:
        """Of TRL's policy loss over so many tokens, those of prompts too."""
        tile = min(tokens, _TRL_TILE[0]) * _TRL_TILE[1] * (2 if self.casts else self.itemsize)
        gradient = 4 * self.vocab_size * self.size if self.trained else 0
        return self._states(tokens, 1) + 4 * tokens * self.size + gradient + tile

    def _states(self, tokens: int, number: int) -> int:
        """Arrays like the hidden states."""
        return number * self.itemsize * tokens * self.size

    def _copies(self, tokens: int, models: int) -> int:
        return models * 2 * (self.vocab_size + tokens) * self.size if self.casts else 0

    def _gradient(self) -> int:
        """The head's, summed in float32; a tile's part in 16 bits, or the sum's copy, beside it."""
        half = self.casts or self.itemsize < 4
        return (6 if half else 4) * self.vocab_size * self.size if self.trained else 0

    def _tiles(self, tokens: int, number: int) -> int:
        tile = min(tokens, max(1, TILE_ELEMENTS // self.vocab_size)) * self.vocab_size
        return 4 * tile * number + (2 * tile if self.casts or self.itemsize < 4 else 0)
