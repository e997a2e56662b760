"""Answers and scores are found again by content, and nothing that is known is asked again."""

import copy
import inspect
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM

from dareu.metrics import METRICS, measure
from dareu.metrics.kept import Kept, row_key

NAMES = ("rouge", "probability", "extraction_strength", "sampled_facts", "truth_ratio", "fluency", "mia_reference")
CHOSEN = {name: METRICS[name] for name in NAMES}


def rows(owner, number=3, end=""):
    texts = {
        "prompt": [f"Where was {owner.title()} born, row {row}?" for row in range(number)],
        "completion": [f" {owner.title()} was born in Accra{end}." for row in range(number)],
    }
    others = {"facts": [["Accra"]] * number, "perturbed": [[" In Porto."]] * number}
    return Dataset.from_dict({**texts, "owner": [owner] * number, **others})


SPLITS = {"forget": rows("ann"), "retain": rows("bob"), "test": rows("zoe")}


@pytest.fixture
def asked(monkeypatch):
    """Rows of each forward pass of any model, in which generation has one of prompts and one a token."""
    seen = []
    forward = LlamaForCausalLM.forward

    def counted(self, input_ids=None, **given):
        seen.append(len(input_ids))
        return forward(self, input_ids, **given)

    counted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    return seen


@pytest.fixture
def measured(tmp_path, tokenizer, asked):
    def run(model, base=None, splits=SPLITS, **settings):
        asked.clear()
        options = {"metrics": CHOSEN, "max_new_tokens": 3, "num_samples": 2, "cache_dir": tmp_path} | settings
        own = options.pop("tokenizer", tokenizer)
        return measure(model, own, splits, judges={}, forget_owners=["ann"], base_model=base, **options)

    return run


def same(one, other):
    assert one.metrics == other.metrics and one.answers == other.answers and one.intervals == other.intervals
    assert one.row_values.keys() == other.row_values.keys()
    for name, values in one.row_values.items():
        np.testing.assert_array_equal(values, other.row_values[name])


def test_a_second_call_asks_nothing(tiny_llama, measured, asked, tmp_path):
    first = measured(tiny_llama(), tiny_llama(seed=1))
    assert asked
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["answers", "scores", "scores"]
    again = measured(tiny_llama(), tiny_llama(seed=1), batch_size=1)
    assert asked == []
    same(first, again)
    same(first, measured(tiny_llama(), tiny_llama(seed=1), cache_dir=None))
    assert asked


def test_only_a_changed_row_is_asked_again(tiny_llama, measured, asked):
    measured(tiny_llama(), tiny_llama(seed=1))
    changed = SPLITS["retain"].map(lambda row, i: {"completion": " No."} if i == 1 else row, with_indices=True)
    found = measured(tiny_llama(), tiny_llama(seed=1), SPLITS | {"retain": changed})
    assert asked == [1]  # its gold answer's likelihood; the prompt is the same, and so is the answer
    same(found, measured(tiny_llama(), tiny_llama(seed=1), SPLITS | {"retain": changed}, cache_dir=None))


@pytest.mark.parametrize("change", ["weights", "dtype", "tokens", "seed", "config", "end"])
def test_whatever_decides_a_result_finds_it_anew(tiny_llama, measured, asked, tokenizer, change):
    model, base = tiny_llama(), tiny_llama(seed=1)
    measured(model, base)
    settings = {}
    if change == "weights":
        model.model.norm.weight.data[0] += 1e-3
    elif change == "dtype":
        model = model.to(torch.bfloat16)
    elif change == "config":
        model.config.rms_norm_eps *= 2
    elif change == "end":
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, 1]
    else:
        settings = {"max_new_tokens": 4} if change == "tokens" else {"sample_seed": 1}
    found = measured(model, base, **settings)
    assert asked
    same(found, measured(model, base, cache_dir=None, **settings))


def test_another_tokenizer_is_another_model(tiny_llama, measured, asked, tokenizer):
    measured(tiny_llama(), tiny_llama(seed=1))
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["Ghent"])
    measured(tiny_llama(), tiny_llama(seed=1), tokenizer=other)
    assert asked


def test_a_chat_template_that_writes_the_time_is_another_one_each_time(tiny_llama, measured, asked, tokenizer):
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%H:%M:%S.%f') }}{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
    for _ in range(2):
        asked.clear()
        measured(tiny_llama(), tiny_llama(seed=1), tokenizer=dated)
        assert asked


def test_a_damaged_file_is_made_again_with_a_warning(tiny_llama, measured, asked, tmp_path, caplog):
    first = measured(tiny_llama(), tiny_llama(seed=1))
    (answers,) = tmp_path.glob("answers-*")
    answers.write_bytes(answers.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING):
        same(first, measured(tiny_llama(), tiny_llama(seed=1)))
    assert asked and f"{answers} is no whole file of answers" in caplog.text
    assert measured(tiny_llama(), tiny_llama(seed=1)) and asked == []


def test_what_fails_leaves_nothing(tiny_llama, tokenizer, tmp_path: Path):
    def fail(places):
        raise ValueError("broken")

    kept = Kept(tmp_path, tiny_llama(), tokenizer)
    with pytest.raises(ValueError, match="broken"):
        kept.completed("scores", [row_key([1])], fail)
    assert list(tmp_path.iterdir()) == []
    found = kept.completed(
        "scores", [row_key([1]), row_key([2]), row_key([1])], lambda places: [{"a": p} for p in places]
    )
    assert [each["a"] for each in found] == [0, 1, 0]  # each row once


def test_keys_tell_parts_apart():
    keys = [
        row_key([1, 2], [3]),
        row_key([1], [2, 3]),
        row_key([1, 2, 3]),
        row_key([1, 2], [3], []),
        row_key(None),
        row_key([]),
    ]
    assert len(set(keys)) == len(keys) and row_key((1, 2), [3]) == keys[0]
