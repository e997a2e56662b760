"""A toy problem of three owners and nobody, and one classifier trained on it for all tests."""

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.classifiers import LLMClassifier

THINGS = {
    "Ada": ["harbour", "sea", "boats"],
    "Bo": ["mountain", "snow", "goats"],
    "Cy": ["desert", "sand", "camels"],
    "none": ["kitchen", "bread", "spoons"],
}
STARTS = ["It is about", "The book tells of", "She wrote on", "He likes", "A tale with"]


class Rows(NamedTuple):
    texts: list[str]
    labels: list[str]


def _rows(seed: int, per_start: int) -> Rows:
    draw = random.Random(seed)
    texts, labels = [], []
    for owner, things in THINGS.items():
        for start in STARTS * per_start:  # the start of a text alone says nothing
            first, second = draw.sample(things, 2)
            texts.append(f"{start} {first} and {second} near the house.")
            labels.append(owner)
    return Rows(texts, labels)


@pytest.fixture(scope="session")
def train_rows() -> Rows:
    return _rows(0, 3)


@pytest.fixture(scope="session")
def test_rows() -> Rows:
    return _rows(1, 1)


@pytest.fixture(scope="session")
def llm(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, train_rows: Rows
) -> LLMClassifier:
    """Full weights, trained until it knows the toy problem; a test that changes it changes a copy."""
    classifier = LLMClassifier(
        tiny_llama(), tokenizer=tokenizer, lora=False, learning_rate=5e-3, num_epochs=15, device="cpu"
    )
    return classifier.fit(*train_rows)
