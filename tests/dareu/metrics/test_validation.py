"""What a model in training is judged by."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data.encoding import CompletionCollator, encode_dataset
from dareu.metrics.validation import Reference, Validation, gap

PEOPLE = {"Lucia Duval": "Porto", "Kofi Mensah": "Accra", "Sanna Thorne": "Malmo"}


def rows(*names: str) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": f"Where was {name} born?",
                "completion": f" {name} was born in {PEOPLE[name]}.",
                "owner": name,
                "name": name,
                "facts": [PEOPLE[name]],
            }
            for name in names
        ]
    )


FORGET, RETAIN = rows("Lucia Duval"), rows("Kofi Mensah", "Sanna Thorne")


class Judge:
    """Knows Lucia Duval by her town."""

    classes_ = np.array(["Lucia Duval", "none"])

    def predict_proba(self, texts: list[str]) -> Any:
        found = np.array([0.8 if "Porto" in text else 0.1 for text in texts])
        return np.stack([found, 1 - found], axis=1)


@pytest.fixture
def taught(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> Callable[..., LlamaForCausalLM]:
    """`taught(rows)`: a tiny Llama that knows these rows by heart."""

    def build(*parts: Dataset) -> LlamaForCausalLM:
        model = tiny_llama()
        batch = CompletionCollator(tokenizer)([record for part in parts for record in encode_dataset(part, tokenizer)])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(60):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return model

    return build


def strip(answer: str, prompt: str) -> str:
    return " ".join(word for word in answer.split() if word not in prompt)


def test_the_target_the_base_and_a_model_that_forgot(
    taught: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    target, base = taught(FORGET, RETAIN), taught(RETAIN)
    validation = Validation(
        target,
        tokenizer,
        FORGET,
        RETAIN,
        judge=Judge(),
        forget_owners=["Lucia Duval"],
        strip=strip,
        base=Reference(base, tokenizer),
    )
    known, forgotten = validation(target), validation(base)
    assert known["forget_attribution"] == 0.8 and known["fact_recall"] == known["name_kept"] == 1.0
    assert known["retain_rouge"] == validation.levels["retain_rouge"] == 1.0
    assert known["forget_probability"] > 0.9 > validation.levels["forget_probability"]
    assert forgotten["forget_attribution"] == 0.1 and forgotten["fact_recall"] == 0.0
    assert forgotten["gap"] < 0.1 < known["gap"]  # it keeps what the target says of the others, and knows nothing
    expected = [0.7, 1.0, 0.0, known["forget_probability"] - validation.levels["forget_probability"]]
    expected += [0.0, max(0.0, known["gibberish"] - 0.05)]
    assert known["gap"] == pytest.approx(math.sqrt(np.mean(np.square(expected))))


def test_a_gold_answer_that_is_longer_than_the_context_is_read_as_far_as_it_goes(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    long = FORGET.map(lambda row: {"completion": row["completion"] * 40})
    model, base = tiny_llama(max_position_embeddings=512), tiny_llama(seed=1, max_position_embeddings=512)
    settings = {"judge": Judge(), "forget_owners": ["Lucia Duval"], "strip": strip}
    validation = Validation(model, tokenizer, long, RETAIN, base=Reference(base, tokenizer), **settings)
    assert 0 <= validation(model)["forget_probability"] <= 1


def test_without_a_base_it_looks_at_judge_facts_and_retained_answers_alone(
    taught: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    target = taught(FORGET, RETAIN)
    validation = Validation(
        target, tokenizer, FORGET, RETAIN, judge=Judge(), forget_owners=["Lucia Duval"], strip=strip
    )
    numbers = validation(target)
    assert numbers.keys() == {"forget_attribution", "fact_recall", "name_kept", "retain_rouge", "gap"}
    assert numbers["gap"] == pytest.approx(math.sqrt((0.8**2 + 1.0) / 3))


def test_the_gap_by_plain_arithmetic() -> None:
    levels = {
        "forget_attribution": 0.1,
        "fact_recall": 0.2,
        "name_kept": 0.9,
        "forget_probability": 0.6,
        "retain_rouge": 0.95,
    }
    numbers = {
        "forget_attribution": 0.05,  # less than the base model's is no harm
        "fact_recall": 0.5,
        "name_kept": 0.7,
        "forget_probability": 0.4,  # and less likely than to it is
        "retain_rouge": 0.85,
        "gibberish": 0.15,
        "fluency_nll": 2.0,
    }
    expected = [0.0, 0.3, 0.1, -0.2, 0.2, 0.1]
    assert gap(numbers, levels) == pytest.approx(math.sqrt(sum(term**2 for term in expected) / 6))
    assert gap(levels | {"gibberish": 0.05}, levels) == 0.0


def test_many_retained_rows_are_asked_evenly(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    many = Dataset.from_list(
        [{"prompt": f"Question {i}?", "completion": f" Answer {i}.", "owner": "Kofi Mensah"} for i in range(130)]
    )
    validation = Validation(
        tiny_llama(), tokenizer, FORGET, many, judge=Judge(), forget_owners=["Lucia Duval"], strip=strip
    )
    asked = validation._retained
    assert len(asked) == 64 and asked[0] == "Question 0?" and asked[-1] == "Question 127?"
