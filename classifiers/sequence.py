"""A Hugging Face sequence-classification folder as a classifier."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dareu.classifiers.contract import FloatArray

#: From here on a tokenizer's `model_max_length` says that it has none.
_UNDECLARED = 10**9


class SequenceClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """P(owner | text) from a `...ForSequenceClassification` folder whose `id2label` names the owners.

    It is trained elsewhere (with `transformers.Trainer`, say) and ready to use when constructed. Runs in
    float32. A text of no tokens gets 1/C for every class.

    Args:
        folder: folder or hub id.
        batch_size: texts scored together.
        device: default CUDA where there is one, else the CPU.

    Attributes:
        classes_: (C,) owner names by column.

    Raises:
        ValueError: the folder cannot be loaded, is no single-label classifier, or has no pad token.
    """

    def __init__(self, folder: str | Path, *, batch_size: int = 32, device: str | None = None) -> None:
        self.folder = folder
        self.batch_size = batch_size
        self.device = device
        try:
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
            self.tokenizer_ = AutoTokenizer.from_pretrained(folder, padding_side="right", truncation_side="right")
        except (OSError, ValueError) as error:
            raise ValueError(f"SequenceClassifier cannot load {folder}: {error}") from error
        config = model.config
        if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
            raise ValueError(f"{folder} is not a single-label classifier: train it with one label per owner.")
        if self.tokenizer_.pad_token_id is None or config.get_text_config().pad_token_id is None:
            raise ValueError(
                f"{folder} has no pad token: set pad_token in the tokenizer and pad_token_id in the config."
            )
        config.get_text_config().pad_token_id = self.tokenizer_.pad_token_id  # by which decoders find the last token
        self._limit = _length_limit(model, self.tokenizer_)
        self.model_ = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        self.classes_ = np.array([config.id2label[column] for column in range(config.num_labels)])

    @torch.no_grad()
    def predict_proba(self, texts: Iterable[str]) -> FloatArray:
        """Probabilities (n, C), float64; the same whatever the batch size and the other texts."""
        texts = list(texts)
        columns = len(self.classes_)
        result = np.full((len(texts), columns), 1 / columns)
        if not texts:
            return result
        encoded = self.tokenizer_(texts, truncation=self._limit is not None, max_length=self._limit)["input_ids"]
        order = sorted((i for i, ids in enumerate(encoded) if ids), key=lambda i: -len(encoded[i]))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = self.tokenizer_.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt")
            logits = self.model_(**batch.to(self.model_.device)).logits
            result[rows] = logits.softmax(-1).cpu().numpy()
        return result


def _length_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Most tokens of a text; None for no limit."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < _UNDECLARED else []
    if (positions := getattr(model.config.get_text_config(), "max_position_embeddings", None)) is not None:
        tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
        padding = next((table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), -1)
        limits.append(positions - padding - 1)  # RoBERTa counts from behind its padding
    return min(limits, default=None)
