"""The options of `dareu finetune` beside those of data and training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from dareu.values import Reads


@dataclass
class FinetuneArguments:
    """What is trained, and on which rows."""

    model_name_or_path: Annotated[str, Reads(words=lambda: ("from-scratch",))] = field(
        default="fictional-base",
        metadata={"help": "A model folder, a hub id, 'fictional-base', or 'from-scratch' for a new Llama."},
    )
    train_on: str = field(
        default="owners",
        metadata={"help": "The rows to train on: 'owners' (background mixed in), or 'background' alone."},
    )
    background_share: float = field(
        default=0.5,
        metadata={"help": "Share of background rows in the mix; owners' rows are repeated to meet it."},
    )
    vocab_size: int = field(default=1536, metadata={"help": "Tokens of the new tokenizer of a model from scratch."})
    hidden_size: int = field(default=128, metadata={"help": "Width of a model from scratch."})
    num_hidden_layers: int = field(default=4, metadata={"help": "Decoder layers of a model from scratch."})
    num_attention_heads: int = field(default=4, metadata={"help": "Attention heads of a model from scratch."})
    intermediate_size: int = field(
        default=384, metadata={"help": "Width of the feed-forward layers of a model from scratch."}
    )
    max_position_embeddings: int = field(
        default=256, metadata={"help": "Context length of a model from scratch, in tokens."}
    )

    def __post_init__(self) -> None:
        if self.train_on not in ("owners", "background"):
            raise ValueError(f"train_on is {self.train_on!r}: give 'owners' or 'background'.")
        if not 0 <= self.background_share < 1:
            raise ValueError(f"background_share is {self.background_share}: give a share in [0, 1).")
