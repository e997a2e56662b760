import zlib

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets

from dareu.data.encoding import CompletionCollator, encode_record
from dareu.metrics import (
    METRICS,
    TokenScores,
    against_retrained,
    gradient_norms,
    loss_score,
    measure,
    min_k_plus_plus_score,
    min_k_score,
    privleak,
    zlib_score,
)

SCORES = TokenScores(
    np.array([-1.0, -5.0, -0.5, -3.0, -0.1]),
    np.array([True, False, True, False, True]),
    np.array([-1.5, -2.0, -0.5, -1.0, -0.2]),
    np.array([0.5, 1.5, 0.25, 2.0, 0.0]),
)
TEXT = " Kofi Mensah was born in Accra."


def test_scores_by_hand():
    assert loss_score(SCORES) == pytest.approx(-9.6 / 5)
    assert zlib_score(SCORES, TEXT) == pytest.approx(-9.6 / 5 / len(zlib.compress(TEXT.encode())))
    assert min_k_score(SCORES) == pytest.approx((-5 - 3) / 2)  # the two lowest of five
    assert min_k_score(SCORES, 1.0) == pytest.approx(loss_score(SCORES))
    assert min_k_score(SCORES, 0.1) == -5  # one at least
    standard = [1.0, -2.0, 0.0, -1.0, 0.1 / 1e-6]
    assert min_k_plus_plus_score(SCORES) == pytest.approx(np.mean(sorted(standard)[:2]))
    with pytest.raises(ValueError, match="k is 0"):
        min_k_score(SCORES, 0)


def test_gradient_norms_are_those_of_a_plain_backward(tiny_llama, tokenizer, retain_rows):
    model = tiny_llama()
    model.train()
    model.lm_head.weight.grad = held = torch.ones_like(model.lm_head.weight)
    found = gradient_norms(model, tokenizer, retain_rows)
    assert model.training and model.lm_head.weight.grad is held and (held == 1).all()
    model.eval()
    for row, norm in zip(retain_rows, found, strict=True):
        model.zero_grad()
        record = encode_record(tokenizer, row["prompt"], row["completion"])
        model(**CompletionCollator(tokenizer)([record])).loss.backward()
        squares = sum(weight.grad.square().sum() for weight in model.parameters())
        assert norm == pytest.approx(float(squares.sqrt()), rel=1e-4)
    with pytest.raises(ValueError, match="weights that require a gradient"):
        gradient_norms(model.requires_grad_(False), tokenizer, retain_rows)


def test_a_model_that_knows_its_rows_gives_them_away(memorised, tiny_llama, tokenizer, forget_rows, retain_rows):
    unseen = forget_rows.map(lambda row: {"completion": " Nobody here has ever heard of them."})
    splits = {"forget": forget_rows, "retain": retain_rows, "test": unseen}
    names = ["mia", "mia_reference", "mia_gradient_norm"]
    found = measure(
        memorised(),
        tokenizer,
        splits,
        judges={},
        forget_owners=["Lucia Duval"],
        base_model=tiny_llama(seed=1),
        metrics={name: METRICS[name] for name in names},
    )
    aucs = ["loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradient_norm"]
    assert found.metrics == {f"mia_{name}": 1.0 for name in aucs}
    assert found.answers == {}
    # The other way round what was never seen looks so
    turned = splits | {"forget": unseen, "test": concatenate_datasets([forget_rows, retain_rows])}
    options = {"mia": {"k": 0.2}}
    chosen = {"mia": METRICS["mia"]}
    lost = measure(
        memorised(), tokenizer, turned, judges={}, forget_owners=["Lucia Duval"], metrics=chosen, options=options
    )
    assert lost.metrics == {f"mia_{name}": 0.0 for name in aucs[:4]}


def test_privleak_in_muse_s_orientation():
    assert privleak(0.6, 0.6) == 0
    assert privleak(1.0, 0.5) == -100  # rows to forget still look trained on: as MUSE has it for a target
    assert privleak(0.25, 0.5) == 50
    with pytest.raises(ValueError, match="PrivLeak has no scale"):
        privleak(0.5, 1.0)
    chosen = {name: METRICS[name] for name in ("privleak",)}
    assert against_retrained({"mia_min_k": 1.0}, {"mia_min_k": 0.5}, chosen) == {"privleak": -100}
    assert against_retrained({"mia_min_k": 0.5}, {"mia_min_k": 1.0}, chosen) == {}
    assert against_retrained({}, {}, chosen) == {}
