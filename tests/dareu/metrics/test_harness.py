"""The evaluation harness is called: on a task of ours, from files, where it is installed."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.metrics import METRICS, Estimate
from dareu.metrics.likelihood import choice_accuracy
from dareu.metrics.token_scores import token_scores

TASK = """
task: cities
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc}
"""
ROWS = [
    {"question": f"Where was {name} born?", "choices": ["Accra", "Porto", "Malmo"], "answer": number % 3}
    for number, name in enumerate(("Kofi", "Lucia", "Sanna", "Ann", "Bo", "Cy"))
]


def test_a_task_of_ours(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="the harness is the extra dareu[lm-eval]")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    (tmp_path / "cities.yaml").write_text(TASK % (tmp_path / "rows.jsonl"), encoding="utf-8")
    model = tiny_llama().train()
    draws = random.random, np.random.rand, lambda: torch.rand(1).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = [draw() for draw in draws]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    found = METRICS["lm_eval"].compute(model, tokenizer, tasks=["cities"], include_path=str(tmp_path))
    assert [draw() for draw in draws] == expected and model.training, "a training that it interrupts goes on as before"
    # The harness sums log-probabilities; each city is scored as one more text behind the question
    texts = [[f" {city}" for city in row["choices"]] for row in ROWS]
    scores = token_scores(model, tokenizer, [row["question"] for row in ROWS], texts)
    sums = [[-each.logps[:-1].sum() for each in of_row] for of_row in scores]
    right = [of_row[row["answer"]] for of_row, row in zip(sums, ROWS, strict=True)]
    wrong = [[s for n, s in enumerate(of) if n != row["answer"]] for of, row in zip(sums, ROWS, strict=True)]
    accuracy = found["lm_eval_cities_acc"]
    assert isinstance(accuracy, Estimate) and accuracy.low <= accuracy.value <= accuracy.high
    assert accuracy.value == pytest.approx(choice_accuracy(right, wrong).mean())


def test_without_tasks_or_harness_it_is_refused(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="'lm_eval' needs tasks"):
        METRICS["lm_eval"].compute(tiny_llama(), tokenizer)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ValueError, match=r"needs the harness .*: pip install 'dareu\[lm-eval\]'"):
        METRICS["lm_eval"].compute(tiny_llama(), tokenizer, tasks=["mmlu"])
