"""A causal language model with a classification head; one forward pass scores all prefixes of a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from dareu.classifiers._backbone import add_lora, load_backbone, width_of
from dareu.classifiers._batches import pad_right
from dareu.classifiers._files import LLM_FILE, whole_folder
from dareu.classifiers._tokens import TokenizedText, tokenize
from dareu.classifiers._training import train
from dareu.classifiers.contract import FloatArray

_HEAD_FILE = "head.safetensors"
_NOT_SAVED = ("model", "tokenizer", "device")


class LLMClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """P(owner | answer text) from a causal language model: the attribution score of DareU (arXiv 2605.30919).

    A linear head reads the hidden state of the last token. Training draws from every class alike and takes,
    from one forward pass over a text, its whole with EOS appended (the answer has ended), its whole without
    EOS, and random prefixes cut at token borders; the paper trains on wholes alone and yet queries prefixes.
    Texts are scored without EOS, so a whole text is its own longest prefix. A text of no tokens tells
    nothing and gets 1/C for every class, as the balanced training implies. Everything runs in float32; BOS
    is put first where the tokenizer has one.

    Args:
        model: folder or hub id of a causal language model, or a loaded one (copied, with `tokenizer`).
        tokenizer: fast tokenizer; default the model's own.
        lora: train LoRA adapters (merged afterwards) rather than all weights.
        lora_kwargs: changes to the paper's LoRA settings (r 16, alpha 32, dropout .1, all linear layers).
        learning_rate: peak of a linear warm-up (a tenth of the steps) and decay; AdamW without weight decay.
        num_epochs: an epoch has as many draws as there are texts.
        batch_size: texts in a training batch; four times as many are scored together.
        prefixes: random prefixes of each drawn text.
        max_length: tokens kept of a text, BOS and EOS included; default the model's context.
        seed: of the draws, the adapters and dropout; the global random state is left alone.
        device: default CUDA where there is one, else the CPU.

    Attributes:
        classes_: (C,) owner names, sorted; the reserved `"none"` is a label like any other.
        backbone_: the transformer, in evaluation mode.
        head_: the linear layer.
        tokenizer_: the tokenizer in use.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        lora: bool = True,
        lora_kwargs: Mapping[str, Any] | None = None,
        learning_rate: float = 1e-4,
        num_epochs: int = 5,
        batch_size: int = 16,
        prefixes: int = 2,
        max_length: int | None = None,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.lora = lora
        self.lora_kwargs = lora_kwargs
        self.learning_rate = learning_rate
        self.num_epochs = num_epochs
        self.batch_size = batch_size
        self.prefixes = prefixes
        self.max_length = max_length
        self.seed = seed
        self.device = device

    def fit(self, texts: Iterable[str], labels: Iterable[str]) -> Self:
        """Trains on answers and their owners' names.

        Raises:
            ValueError: lengths differ, fewer than two classes, a text of no tokens, or an unfit model.
        """
        texts, labels = list(texts), [str(label) for label in labels]
        if len(texts) != len(labels):
            raise ValueError(f"LLMClassifier.fit got {len(texts)} texts but {len(labels)} labels: give one for each.")
        if self.max_length is not None and self.max_length < 3:
            raise ValueError(f"max_length is {self.max_length}, but BOS, EOS and one token of the text need 3.")
        self.classes_, targets = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"LLMClassifier.fit needs at least two classes, but got {self.classes_.tolist()}.")
        backbone, self.tokenizer_ = load_backbone(self.model, self.tokenizer)
        # On "meta" a layer is made without its random start, which would move the global random state.
        width = width_of(backbone)
        self._place(backbone, torch.nn.Linear(width, len(self.classes_), device="meta").to_empty(device="cpu"))
        encoded = self._tokenize(texts)
        for row, text in enumerate(encoded):
            if not text.ids:
                raise ValueError(f"Training text {row} ({texts[row]!r}) has no tokens: leave it out.")
        eos = self.tokenizer_.eos_token_id
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            network: Any = add_lora(backbone, self.lora_kwargs) if self.lora else backbone
            train(
                network,
                self.head_,
                [text.ids for text in encoded],
                targets.tolist(),
                start=self._start,
                stop=[] if eos is None else [eos],
                learning_rate=self.learning_rate,
                num_epochs=self.num_epochs,
                batch_size=self.batch_size,
                prefixes=self.prefixes,
                draws=torch.Generator().manual_seed(self.seed),
            )
        if self.lora:
            self.backbone_ = network.merge_and_unload()
        self.backbone_.eval().requires_grad_(False)
        return self

    def predict_proba(self, texts: Iterable[str]) -> FloatArray:
        """Probabilities (n, C), float64; the same whatever the batch size and the other texts."""
        check_is_fitted(self, "head_")
        texts = list(texts)
        encoded = self._tokenize(texts)
        rows = self._probabilities([text.ids for text in encoded], [[len(text.ids)] for text in encoded])
        return np.concatenate(rows) if rows else np.empty((0, len(self.classes_)))

    def predict_proba_at(self, texts: Iterable[str], ends: Iterable[Sequence[int]]) -> list[FloatArray]:
        """Probabilities of the prefixes of each text that end at the given character offsets.

        Each end is snapped left to a token border of the text; the result equals (1e-5) `predict_proba` of
        the text cut there. All prefixes of a text share one forward pass; the rare prefix that the tokenizer
        splits otherwise when it stands alone is scored by itself.

        Args:
            texts: n strings.
            ends: n sequences of offsets, each within 0..len(text).

        Returns:
            n arrays (len(ends[i]), C), float64.
        """
        check_is_fitted(self, "head_")
        texts = list(texts)
        encoded = self._tokenize(texts)
        cuts = [[text.snap(end) for end in offsets] for text, offsets in zip(encoded, ends, strict=True)]
        proba = self._probabilities([text.ids for text in encoded], [[count for count, _ in row] for row in cuts])

        places = [(row, column) for row, cut in enumerate(cuts) for column in range(len(cut))]
        alone = self._tokenize([texts[row][: cuts[row][column][1]] for row, column in places])
        odd = [
            (row, column, prefix.ids)
            for (row, column), prefix in zip(places, alone, strict=True)
            if prefix.ids != encoded[row].ids[: cuts[row][column][0]]
        ]
        rescored = self._probabilities([ids for *_, ids in odd], [[len(ids)] for *_, ids in odd])
        for (row, column, _), scores in zip(odd, rescored, strict=True):
            proba[row][column] = scores[0]
        return proba

    def predict(self, texts: Iterable[str]) -> NDArray[np.str_]:
        """The most probable class of each text, (n,)."""
        proba = self.predict_proba(texts)
        winners: NDArray[np.str_] = self.classes_[proba.argmax(axis=1)]
        return winners

    def save(self, folder: str | Path) -> None:
        """Writes a folder that needs nothing else: weights (safetensors), settings (JSON), tokenizer.

        Raises:
            ValueError: `folder` holds something other than a saved classifier.
        """
        check_is_fitted(self, "head_")
        with whole_folder(folder) as new:
            self.backbone_.save_pretrained(new)
            self.tokenizer_.save_pretrained(new)
            save_file({name: tensor.cpu() for name, tensor in self.head_.state_dict().items()}, new / _HEAD_FILE)
            settings = {name: value for name, value in self.get_params().items() if name not in _NOT_SAVED}
            about = {"format": 1, "classes": self.classes_.tolist(), "settings": settings}
            (new / LLM_FILE).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> Self:
        """Reads what `save` wrote.

        Raises:
            ValueError: `folder` holds no LLMClassifier, or one of a format that this version does not know.
        """
        folder = Path(folder)
        if not (folder / LLM_FILE).is_file():
            raise ValueError(f"{folder} holds no {LLM_FILE}: give a folder that LLMClassifier.save wrote.")
        about = json.loads((folder / LLM_FILE).read_text(encoding="utf-8"))
        if about.get("format") != 1:
            raise ValueError(f"{folder / LLM_FILE} has format {about.get('format')}, but this version reads format 1.")
        classifier = cls(str(folder), device=device, **about["settings"])
        classifier.classes_ = np.array(about["classes"])
        classifier.tokenizer_ = AutoTokenizer.from_pretrained(folder)
        backbone = AutoModel.from_pretrained(folder, dtype=torch.float32)
        weights = load_file(folder / _HEAD_FILE)
        head = torch.nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0], device="meta")
        head.load_state_dict(weights, assign=True)
        classifier._place(backbone, head)
        return classifier

    def _place(self, backbone: PreTrainedModel, head: torch.nn.Linear) -> None:
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        modules: tuple[torch.nn.Module, ...] = (backbone, head)
        for module in modules:
            module.to(device).eval()
        self.backbone_ = backbone
        self.head_: torch.nn.Linear = head

    @property
    def _start(self) -> list[int]:
        bos = self.tokenizer_.bos_token_id
        return [] if bos is None else [int(bos)]

    def _tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        config = self.backbone_.config.get_text_config()
        context = self.max_length or getattr(config, "max_position_embeddings", None)
        room = None if context is None else context - len(self._start) - 1  # one place is kept for EOS
        return tokenize(self.tokenizer_, texts, room)

    @torch.no_grad()
    def _probabilities(self, sequences: Sequence[list[int]], counts: Sequence[list[int]]) -> list[FloatArray]:
        """P(class) after the first `counts[i][j]` tokens of `sequences[i]`: n arrays (len(counts[i]), C)."""
        columns = len(self.classes_)
        result = [np.full((len(row), columns), 1 / columns) for row in counts]
        device = self.head_.weight.device
        # Long texts first: memory runs out at once or never.
        order = sorted((i for i, row in enumerate(counts) if any(row)), key=lambda i: -max(counts[i]))
        for start in range(0, len(order), 4 * self.batch_size):
            rows = order[start : start + 4 * self.batch_size]
            batch = pad_right([[*self._start, *sequences[i][: max(counts[i])]] for i in rows], device)
            states = self.backbone_(**batch, use_cache=False).last_hidden_state
            at = [(b, len(self._start) + max(count, 1) - 1) for b, i in enumerate(rows) for count in counts[i]]
            b_at, t_at = torch.tensor(at, device=device).T
            scores = self.head_(states[b_at, t_at]).softmax(-1).cpu().numpy()
            for i, part in zip(rows, np.split(scores, np.cumsum([len(counts[i]) for i in rows])[:-1]), strict=True):
                told = np.array(counts[i]) > 0
                result[i][told] = part[told]
        return result
