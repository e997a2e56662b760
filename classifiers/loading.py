"""One door for every saved classifier."""

from __future__ import annotations

import json
from pathlib import Path

from dareu.classifiers._files import LLM_FILE, SKOPS_FILE
from dareu.classifiers.contract import Classifier


def load_classifier(folder: str | Path, *, device: str | None = None) -> Classifier:
    """Loads a classifier of any kind from its folder; nothing is unpickled.

    Args:
        folder: written by `LLMClassifier.save`, `TfidfClassifier.save` or `save_skops`, or a Hugging Face
            sequence-classification model.
        device: for the neural kinds; default CUDA where there is one, else the CPU.

    Raises:
        ValueError: there is no folder, none of these is in it, or it is not whole.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no classifier folder {folder}: train one first, or correct the path.")
    try:
        return _load(folder, device)
    except Exception as error:  # files that are cut short fail in many ways
        if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
            raise
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"The classifier in {folder} cannot be read ({said}): copy it whole, or train it again."
        ) from error


def _load(folder: Path, device: str | None) -> Classifier:
    if (folder / LLM_FILE).is_file():
        from dareu.classifiers.llm import LLMClassifier

        return LLMClassifier.load(folder, device=device)
    if (folder / SKOPS_FILE).is_file():
        from dareu.classifiers.skops_files import load_skops

        return load_skops(folder)
    if _is_sequence_classification(folder / "config.json"):
        from dareu.classifiers.sequence import SequenceClassifier

        return SequenceClassifier(folder, device=device)
    raise ValueError(
        f"{folder} holds no classifier: expected {LLM_FILE}, {SKOPS_FILE}, "
        "or the config.json of a Hugging Face ...ForSequenceClassification model."
    )


def _is_sequence_classification(config: Path) -> bool:
    if not config.is_file():
        return False
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)
