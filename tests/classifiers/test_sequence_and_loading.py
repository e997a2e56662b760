"""Hugging Face folders as classifiers, and the one door for every kind."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BloomConfig,
    BloomForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from dareu.classifiers import LLMClassifier, SequenceClassifier, TfidfClassifier, check_classifier, load_classifier

OWNERS = {0: "Cy", 1: "Ada", 2: "none"}
TEXTS = ["It is about the sea.", "snow", "a longer text about the sea, the sand and the snow", ""]


def save_model(kind: str, folder: Path, tokenizer: PreTrainedTokenizerFast, **settings: object) -> None:
    shape = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {
        "intermediate_size": 32,
        "max_position_embeddings": 16,
        "pad_token_id": 0,
        "initializer_range": 0.5,
    }
    names = {"id2label": OWNERS, "label2id": {name: column for column, name in OWNERS.items()}}
    build = {
        "bert": lambda **s: BertForSequenceClassification(BertConfig(**s)),
        "llama": lambda **s: LlamaForSequenceClassification(LlamaConfig(**s)),
        "bloom": lambda **s: BloomForSequenceClassification(BloomConfig(n_head=2, **s)),
        "roberta": lambda **s: RobertaForSequenceClassification(RobertaConfig(**s)),
    }[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(**{**shape, **sizes, **names, **settings})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_sequence_classification_folder_serves(kind: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_model(kind, tmp_path, tokenizer)
    classifier = load_classifier(tmp_path, device="cpu")
    assert isinstance(classifier, SequenceClassifier)
    assert classifier.classes_.tolist() == ["Cy", "Ada", "none"]
    check_classifier(classifier, TEXTS)
    proba = classifier.predict_proba(TEXTS)
    np.testing.assert_allclose(
        SequenceClassifier(tmp_path, batch_size=1, device="cpu").predict_proba(TEXTS), proba, atol=1e-6
    )
    for text, row in zip(TEXTS, proba, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"][:16]])
        with torch.no_grad():
            expected = classifier.model_(input_ids=ids).logits.softmax(-1)[0].numpy()
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert proba.std(axis=0).max() > 0.01


def test_sequence_classifier_refuses_what_cannot_serve(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SequenceClassifier cannot load"):
        SequenceClassifier(tmp_path / "nowhere")
    save_model("bert", tmp_path / "many", tokenizer, problem_type="multi_label_classification")
    with pytest.raises(ValueError, match="is not a single-label classifier"):
        SequenceClassifier(tmp_path / "many")
    padless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    save_model("bert", tmp_path / "padless", padless)
    with pytest.raises(ValueError, match="has no pad token"):
        SequenceClassifier(tmp_path / "padless")


def test_load_classifier_refuses_other_folders(tmp_path: Path, tiny_llama) -> None:
    with pytest.raises(ValueError, match="There is no classifier folder"):
        load_classifier(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no classifier: expected dareu_classifier\.json"):
        load_classifier(tmp_path)
    tiny_llama().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no classifier"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("damage", ["cut weights", "no weights", "a list", "cut description", "cut pipeline"])
def test_a_classifier_that_is_not_whole_is_one_sentence(
    damage: str, tokenizer: PreTrainedTokenizerFast, tiny_llama, tmp_path: Path
) -> None:
    texts, labels = ["Ada sings", "Bo writes"] * 3, ["Ada", "Bo"] * 3
    if damage == "cut pipeline":
        TfidfClassifier("naive_bayes").fit(texts, labels).save(tmp_path)
        file = next(path for path in tmp_path.iterdir() if path.suffix == ".skops")
        file.write_bytes(file.read_bytes()[:50])
    else:
        LLMClassifier(tiny_llama(), tokenizer=tokenizer, num_epochs=1).fit(texts, labels).save(tmp_path)
        head, description = tmp_path / "head.safetensors", tmp_path / "dareu_classifier.json"
        if damage == "cut weights":
            head.write_bytes(head.read_bytes()[:40])
        elif damage == "no weights":
            head.unlink()
        else:
            description.write_text("[]" if damage == "a list" else description.read_text()[:9])
    with pytest.raises(
        ValueError, match=r"The classifier in .* cannot be read \(.*\): copy it whole, or train it again"
    ):
        load_classifier(tmp_path)


def test_a_decoder_reads_the_last_token_whatever_its_config_calls_padding(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_model("llama", tmp_path, tokenizer, pad_token_id=2)
    whole = SequenceClassifier(tmp_path, device="cpu").predict_proba(TEXTS)
    alone = SequenceClassifier(tmp_path, device="cpu", batch_size=1).predict_proba(TEXTS)
    np.testing.assert_allclose(whole, alone, atol=1e-6)


@pytest.mark.parametrize("kind", ["bloom", "roberta"])
def test_a_long_text_is_cut_where_positions_end(kind: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """RoBERTa's positions begin behind its padding, Bloom's never end, and the tokenizer names no limit."""
    endless = copy.deepcopy(tokenizer)
    endless.model_max_length = 10**30
    save_model(
        kind, tmp_path, endless, **({"max_position_embeddings": 20, "pad_token_id": 1} if kind == "roberta" else {})
    )
    proba = SequenceClassifier(tmp_path, device="cpu").predict_proba(["the sea and the snow " * 40])
    assert proba.sum() == pytest.approx(1)
