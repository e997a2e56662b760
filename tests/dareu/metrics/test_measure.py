import copy
import json
import math

import numpy as np
import pytest
from datasets import Dataset
from sklearn.metrics import roc_auc_score
from transformers import AddedToken

from dareu.data.encoding import to_chat
from dareu.metrics import (
    METRICS,
    against_retrained,
    answer_nll,
    distinct,
    exact_memorisation,
    extraction_strength,
    fact_recall,
    facts_in_any,
    forget_attribution,
    generate_answers,
    measure,
    misattribution,
    name_kept,
    repetition,
    rouge_l_f1,
    rouge_l_recall,
    sample_answers,
    sampled_fact_recall,
    token_scores,
)


class LengthJudge:
    """Takes long texts for the forget owner's; remembers what it was shown."""

    def __init__(self, classes=("ann", "bob", "none")):
        self.classes_ = list(classes)
        self.seen = []

    def predict_proba(self, texts):
        self.seen.append(list(texts))
        first = np.array([len(text) / (len(text) + 10) for text in texts])
        rest = np.repeat((1 - first)[:, None] / (len(self.classes_) - 1), len(self.classes_) - 1, axis=1)
        return np.column_stack([first, rest])


def records(owner, count, **columns):
    return Dataset.from_dict(
        {
            "prompt": [f"Where was {owner.title()} Duval born, row {row}?" for row in range(count)],
            "completion": [f" {owner.title()} Duval was born in Accra in 196{row}." for row in range(count)],
            "owner": [owner] * count,
            **columns,
        }
    )


@pytest.fixture(scope="module")
def splits():
    return {
        "forget": records("ann", 3, facts=[["Accra", "1960"], ["Accra"], []], name=["Ann Duval"] * 3),
        "retain": records("bob", 2, facts=[["Accra"], None], name=["Bob Duval", None]),
        "test": records("zoe", 1),
    }


SETTINGS = {"forget_owners": ["ann"], "max_new_tokens": 8}


def strip(answer, prompt):
    return answer[: len(answer) // 2] if prompt.startswith("Where was") else "unreached"


def test_every_metric_is_its_family_s_mean(tiny_llama, tokenizer, splits):
    model, base = tiny_llama(), tiny_llama(seed=1)
    reward, test = LengthJudge(), LengthJudge(["ann", "bob", "cid", "none"])
    validation = LengthJudge(["bob", "ann"])
    metrics, answers, rows, split_of, intervals, left_out, _ = measure(
        model,
        tokenizer,
        splits,
        judges={"reward": reward, "validation": validation, "test": test},
        base_model=base,
        strip=strip,
        num_samples=3,
        **SETTINGS,
    )
    forget = splits["forget"]
    assert list(answers) == ["forget", "retain", "test"]
    assert answers["forget"] == generate_answers(model, tokenizer, list(forget["prompt"]), max_new_tokens=8)
    bare = [answer[: len(answer) // 2] for answer in answers["forget"]]
    samples = sample_answers(model, tokenizer, list(forget["prompt"]), num_samples=3, max_new_tokens=8)
    facts = [["Accra", "1960"], ["Accra"]]
    assert [len(seen) for seen in reward.seen] == [3, 3]  # whole and stripped, once each
    assert test.seen == [answers["forget"], bare]

    expected = {
        "forget_attribution": forget_attribution(reward, answers["forget"], ["ann"]),
        "forget_attribution_validation": forget_attribution(validation, answers["forget"], ["ann"]),
        "forget_attribution_heldout": forget_attribution(test, answers["forget"], ["ann"]),
        "misattribution": misattribution(test, answers["forget"], ["ann"]),
        "forget_attribution_stripped": forget_attribution(reward, bare, ["ann"]),
        "forget_attribution_validation_stripped": forget_attribution(validation, bare, ["ann"]),
        "forget_attribution_heldout_stripped": forget_attribution(test, bare, ["ann"]),
        "misattribution_stripped": misattribution(test, bare, ["ann"]),
        "fact_recall": np.mean(fact_recall(answers["forget"][:2], facts)),
        "sampled_facts": np.mean(sampled_fact_recall(samples[:2], facts)),
        "any_fact_of_3": np.mean(facts_in_any(samples[:2], facts)),
        "leak_at_1": np.mean(
            [[any(fact_recall([s], [f])) for s in of] for of, f in zip(samples[:2], facts, strict=True)]
        ),
        "retain_fact_recall": fact_recall(answers["retain"][:1], [["Accra"]])[0],
        "name_kept": np.mean(name_kept(answers["forget"], forget["prompt"], forget["completion"], ["Ann Duval"] * 3)),
        "retain_name_kept": float("Bob Duval" in answers["retain"][0]),
        "forget_answer_words": np.mean([len(answer.split()) for answer in answers["forget"]]),
    }
    likelihoods = {}
    for split, dataset in splits.items():
        golds = list(dataset["completion"])
        expected[f"{split}_rouge"] = rouge_l_recall(answers[split], golds).mean()
        expected[f"{split}_rouge_f1"] = rouge_l_f1(answers[split], golds).mean()
        nll = likelihoods[split] = answer_nll(model, tokenizer, list(dataset["prompt"]), golds)
        expected[f"{split}_probability"] = np.exp(-nll.mean).mean()
        if split != "test":
            scores = [each for (each,) in token_scores(model, tokenizer, list(dataset["prompt"]), [[g] for g in golds])]
            hits = [each.hits for each in scores]
            expected[f"{split}_exact_memorisation"] = exact_memorisation(hits).mean()
            expected[f"{split}_extraction_strength"] = extraction_strength(hits).mean()
            expected[f"{split}_distinct_2"] = distinct(answers[split])
            expected[f"{split}_repetition"] = repetition(answers[split]).mean()
            expected[f"{split}_empty"] = np.mean([answer == "" for answer in answers[split]])
    # The answers were generated after the prompt with a space before them, like the gold ones.
    spaced = [f" {answer}" for answer in answers["forget"]]
    nll = answer_nll(base, tokenizer, list(forget["prompt"]), spaced).mean
    gold = answer_nll(base, tokenizer, list(forget["prompt"]), list(forget["completion"])).mean
    expected |= {"forget_base_nll": nll.mean(), "gibberish_beside_gold": np.mean(nll > np.quantile(gold, 0.95))}
    prompts, golds = list(splits["test"]["prompt"]), list(splits["test"]["completion"])
    base_nll = [gold, answer_nll(base, tokenizer, prompts, golds).mean]
    known = [base_nll[side] - likelihoods[split].mean for side, split in enumerate(("forget", "test"))]
    expected["mia_reference"] = roc_auc_score([1, 1, 1, 0], np.concatenate(known))
    losses = np.concatenate([likelihoods["forget"].mean, likelihoods["test"].mean])
    expected["mia_loss"] = roc_auc_score([1, 1, 1, 0], -losses)
    others = {"mia_zlib", "mia_min_k", "mia_min_k_plus_plus"}
    whole = {"mia_reference", "mia_loss", "forget_distinct_2", "retain_distinct_2"}
    assert metrics.keys() == expected.keys() | others
    assert rows.keys() == split_of.keys() and split_of["fact_recall"] == split_of["misattribution"] == "forget"
    assert split_of["retain_fact_recall"] == split_of["retain_rouge"] == "retain"
    assert rows.keys() == expected.keys() - whole
    assert intervals.keys() == metrics.keys() - {"forget_distinct_2", "retain_distinct_2"}
    assert all(low <= metrics[name] <= high for name, (low, high) in intervals.items())
    absent = "the rows of the split 'forget' have no column 'perturbed': add it"
    assert left_out == {"option_probability": absent, "truth_ratio": absent}
    assert all(metrics[name] == pytest.approx(np.nanmean(values)) for name, values in rows.items())
    assert len(rows["fact_recall"]) == 3 and np.isnan(rows["fact_recall"][2])
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_what_is_not_given_is_left_out(tiny_llama, tokenizer, splits):
    bare = {split: dataset.select_columns(["prompt", "completion", "owner"]) for split, dataset in splits.items()}
    found = measure(tiny_llama(), tokenizer, bare, judges={}, **SETTINGS)
    of_rows = ("exact_memorisation", "extraction_strength", "distinct_2", "repetition", "empty")
    assert set(found.metrics) == {
        *(f"{split}_{name}" for split in splits for name in ("rouge", "rouge_f1", "probability")),
        *(f"{split}_{name}" for split in ("forget", "retain") for name in of_rows),
        *("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus"),
        *("name_kept", "retain_name_kept", "forget_answer_words"),
    }  # names are guessed where there is no column
    assert found.left_out["attribution"] == "there is no judge: give one"
    assert found.left_out["mia_reference"] == "there is no base model: give the checkpoint before fine-tuning"
    assert found.left_out["fact_recall"] == "the rows of the split 'forget' have no column 'facts': add it"
    assert "mia_gradient_norm" not in found.left_out  # it was not named


def test_facts_of_the_prompt_do_not_count(tiny_llama, tokenizer, splits):
    known = splits["forget"].remove_columns("facts").add_column("facts", [["Duval"]] * 3)
    metrics = measure(tiny_llama(), tokenizer, splits | {"forget": known}, judges={}, **SETTINGS).metrics
    assert "fact_recall" not in metrics


def test_empty_answers_are_measured(tiny_llama, tokenizer, splits, monkeypatch):
    model = tiny_llama()
    every = {token: AddedToken(str(token)) for token in range(len(tokenizer))}
    monkeypatch.setattr(type(tokenizer), "added_tokens_decoder", property(lambda _: every))
    model.generation_config.eos_token_id = list(range(len(tokenizer)))
    metrics, answers, *_ = measure(
        model,
        tokenizer,
        splits,
        judges={"reward": LengthJudge(), "test": LengthJudge()},
        base_model=model,
        strip=strip,
        **SETTINGS,
    )
    assert answers["forget"] == ["", "", ""]
    assert metrics["forget_rouge"] == metrics["fact_recall"] == metrics["forget_answer_words"] == 0
    assert metrics["forget_attribution"] == 0
    assert all(math.isfinite(value) for value in metrics.values())


def test_chat_records(tiny_llama, tokenizer, splits):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}"
        "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    chats = {split: to_chat(dataset) for split, dataset in splits.items()}
    model = tiny_llama()
    metrics = measure(
        model, chatty, chats, judges={"test": LengthJudge()}, base_model=model, strip=strip, **SETTINGS
    ).metrics
    assert {"fact_recall", "name_kept", "forget_base_nll", "misattribution_stripped"} <= metrics.keys()


def test_without_test_rows_what_is_made_of_them_is_left_out(tiny_llama, tokenizer, splits):
    model, settings = tiny_llama(), SETTINGS | {"judges": {"test": LengthJudge()}, "strip": strip}
    whole = measure(model, tokenizer, splits, **settings)
    found = measure(model, tokenizer, {name: splits[name] for name in ("forget", "retain")}, **settings)
    of_test = ("test_", "mia_", "model_utility")
    assert {name for name in whole.metrics if not name.startswith(of_test)} == found.metrics.keys()
    assert found.metrics.items() <= whole.metrics.items()
    assert found.left_out["mia"] == found.left_out["model_utility"]
    assert "name a file of them as test_dataset" in found.left_out["mia"]
    assert {"retraining_gap", "tow_star"} <= against_retrained(found.metrics, found.metrics).keys()
    assert "tow" not in against_retrained(found.metrics, found.metrics)


def test_bad_input_stops_before_anything_is_generated(tiny_llama, tokenizer, splits, monkeypatch):
    model = tiny_llama()
    monkeypatch.setattr(model, "generate", lambda **_: pytest.fail("generated"))

    def refused(match, splits=splits, judges=None, **settings):
        with pytest.raises(ValueError, match=match):
            measure(model, tokenizer, splits, judges=judges or {}, **(SETTINGS | settings))

    refused("The splits are forget, test: give", {name: splits[name] for name in ("forget", "test")})
    alone = {name: splits[name] for name in ("forget", "retain")}
    for metric in (METRICS["mia"], METRICS["rouge"]._replace(splits=("test",))):
        refused("The metric 'm' asks for test rows, but there are no test rows: name a", alone, metrics={"m": metric})
    refused("The split 'test' has no rows", splits | {"test": splits["test"].select([])})
    refused("The split 'test': .*owner", splits | {"test": splits["test"].remove_columns("owner")})
    refused("The judge 'jury' has no metric", judges={"jury": LengthJudge()})
    refused(
        "does not know the owner 'zoe'; its classes are ann, bob, none",
        judges={"test": LengthJudge()},
        forget_owners=["zoe"],
    )
