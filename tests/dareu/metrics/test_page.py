"""docs/metrics.md names every number that measuring gives."""

import re
from pathlib import Path

import numpy as np
from datasets import Dataset

from dareu.metrics import METRICS, against_retrained, measure

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")


class Judge:
    classes_ = ("ann", "bob")

    def predict_proba(self, texts):
        return np.full((len(texts), 2), 0.5)


def test_every_number_is_on_the_page(tiny_llama, tokenizer):
    def rows(owner):
        texts = {"prompt": [f"Where was {owner} Duval born?"] * 2, "completion": [f" {owner} Duval in Accra."] * 2}
        return Dataset.from_dict({**texts, "owner": [owner] * 2, "facts": [["Accra"]] * 2, "perturbed": [[" No."]] * 2})

    model, owners = tiny_llama(), {"forget": "ann", "retain": "bob", "test": "zoe"}
    found = measure(
        model,
        tokenizer,
        {split: rows(owner) for split, owner in owners.items()},
        judges={"reward": Judge(), "test": Judge()},
        forget_owners=["ann"],
        base_model=model,
        strip=lambda answer, prompt: answer,
        metrics={name: metric for name, metric in METRICS.items() if name != "lm_eval"},  # which takes tasks
        max_new_tokens=2,
    )
    values = {"row_values": found.row_values, "retrained_row_values": found.row_values}
    numbers = found.metrics | against_retrained(found.metrics, found.metrics, **values) | {"privleak": 0.0}
    said = set(re.findall(r"`(\w+|<split>_\w+)`", PAGE))
    assert {"mia_gradient_norm", "model_utility", "forget_quality", "retain_name_kept"} <= numbers.keys()
    plain = {re.sub("_stripped$", "", name) for name in numbers}
    assert not {name for name in plain if not said & {name, re.sub("^(forget|retain|test)_", "<split>_", name)}}
