"""Metrics that are chosen: what they are given, what is computed for them, and what is refused."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from dareu.metrics import (
    METRICS,
    AgainstRetrained,
    Metric,
    OfModel,
    answer_nll,
    attribution_scores,
    check_metrics,
    generate_answers,
    measure,
    sample_answers,
    shown_columns,
)
from dareu.metrics._offered import OF_SPLIT
from dareu.plugins import resolve

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "plug_in" / "metric.md").read_text(encoding="utf-8")


class EvenJudge:
    """Takes every text for either of two owners."""

    classes_ = ("ann", "bob")

    def predict_proba(self, texts):
        return np.full((len(texts), 2), 0.5)


def rows(owner, count):
    return Dataset.from_dict(
        {
            "prompt": [f"Where was {owner} born, row {row}? " for row in range(count)],
            "completion": [f" {owner} was born in Accra." for _ in range(count)],
            "owner": [owner] * count,
        }
    )


@pytest.fixture(scope="module")
def splits():
    return {"forget": rows("ann", 3), "retain": rows("bob", 2), "test": rows("zoe", 1)}


@pytest.fixture
def measured(tiny_llama, tokenizer, splits):
    """`measured(metrics, **settings)` of a tiny model."""

    def run(metrics, splits=splits, model=None, judges=None, **settings):
        model = model or tiny_llama()
        given = {"judges": judges or {}, "forget_owners": ["ann"], "max_new_tokens": 4} | settings
        return measure(model, tokenizer, splits, metrics=metrics, **given)

    return run


def test_what_no_chosen_metric_asks_for_is_not_computed(tiny_llama, measured, monkeypatch):
    model = tiny_llama()
    monkeypatch.setattr(model, "generate", lambda **_: pytest.fail("generated"))
    monkeypatch.setattr(EvenJudge, "predict_proba", lambda *_: pytest.fail("judged"))
    metrics, answers, *_ = measured({"probability": METRICS["probability"]}, model=model, judges={"test": EvenJudge()})
    assert list(metrics) == ["forget_probability", "retain_probability", "test_probability"]
    assert answers == {}


def test_answers_and_likelihoods_of_a_split_are_computed_once(tiny_llama, measured, monkeypatch):
    model, asked, scored = tiny_llama(), [], []
    generate, forward = model.generate, model.forward
    monkeypatch.setattr(model, "generate", lambda **given: asked.append(len(given["input_ids"])) or generate(**given))
    answers = {"words": METRICS["answer_words"], "again": Metric(lambda answers: {"again": len(answers)})}
    assert measured(answers, model=model).answers.keys() == {"forget"}
    assert asked == [3]
    monkeypatch.setattr(model, "forward", lambda **given: scored.append(len(given["input_ids"])) or forward(**given))
    nll = {"nll": Metric(lambda nll: {"nll": nll.mean}), "tokens": Metric(lambda nll: {"tokens": nll.num_tokens})}
    measured(nll, model=model)
    assert scored == [3]


def test_everything_that_is_offered(tiny_llama, tokenizer, measured, splits):
    model, base, judge, seen = tiny_llama(), tiny_llama(seed=1), EvenJudge(), {}
    full = {name: split.add_column("facts", [["Accra", "Ann"]] * len(split)) for name, split in splits.items()}
    others = {"paraphrase": [" In Accra.", None], "perturbed": [[" In Porto.", "In Ghent."], []]}
    for column, values in others.items():
        full["retain"] = full["retain"].add_column(column, values)

    def look(
        split, rows, prompts, golds, answers, samples, bare_answers, scores, nll, paraphrase_nll, wrong_nll, facts,
        names, judgements, base_nll, gold_base_nll, forget_owners, model, tokenizer,
    ):  # fmt: skip
        return {}

    def record(**given):
        seen.update(given)
        return look(**given)

    record.__signature__ = inspect.signature(look)

    metrics = {"look": Metric(record, splits=("retain",))}
    drawn = {"num_samples": 3, "sample_seed": 5}
    measured(
        metrics,
        full,
        model,
        {"test": judge},
        base_model=base,
        **drawn,
        strip=lambda answer, prompt: prompt + answer[:2],
    )
    assert seen.keys() == set(OF_SPLIT)
    prompts, golds = list(full["retain"]["prompt"]), list(full["retain"]["completion"])
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens=4)
    assert seen["split"] == "retain" and seen["rows"] is full["retain"] and seen["names"] is None
    assert seen["prompts"] == [prompt.strip() for prompt in prompts]
    assert seen["golds"] == ["bob was born in Accra."] * 2
    assert seen["answers"] == answers
    assert seen["samples"] == sample_answers(model, tokenizer, prompts, num_samples=3, seed=5, max_new_tokens=4)
    assert seen["bare_answers"] == [
        prompt.strip() + answer[:2] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    np.testing.assert_allclose(seen["nll"].total, answer_nll(model, tokenizer, prompts, golds).total, atol=1e-5)
    assert [len(each.logps) for each in seen["scores"]] == seen["nll"].num_tokens.tolist()
    alternates = answer_nll(model, tokenizer, prompts[:1] * 3, [" In Accra.", " In Porto.", " In Ghent."]).mean
    np.testing.assert_allclose(seen["paraphrase_nll"], [alternates[0], np.nan], atol=1e-5)
    np.testing.assert_allclose(seen["wrong_nll"][0], alternates[1:], atol=1e-5)
    assert seen["wrong_nll"][1].shape == (0,)
    spaced = [f" {answer}" for answer in answers]
    np.testing.assert_array_equal(seen["base_nll"].total, answer_nll(base, tokenizer, prompts, spaced).total)
    np.testing.assert_array_equal(seen["gold_base_nll"].total, answer_nll(base, tokenizer, prompts, golds).total)
    assert seen["facts"] == [["Accra", "Ann"]] * 2
    assert list(seen["judgements"]) == ["test", "test_stripped"]
    expected = attribution_scores(judge, answers, ["ann"])
    np.testing.assert_array_equal(seen["judgements"]["test"].forget, expected.forget)
    assert seen["forget_owners"] == ["ann"] and seen["model"] is model and seen["tokenizer"] is tokenizer


@pytest.mark.parametrize(
    ("column", "value", "form"),
    [
        ("perturbed", "In Porto.", "a list of texts"),
        ("perturbed", [None], "a list of texts"),
        ("paraphrase", 12, "a text"),
        ("paraphrase", ["In Accra."], "a text"),
        ("name", 7, "a text"),
    ],
)
def test_a_column_of_another_form_is_not_read_letter_by_letter(measured, splits, column, value, form):
    rows = splits["forget"].add_column(column, [None, None, value])
    looks = {
        "perturbed": lambda wrong_nll: {},
        "paraphrase": lambda paraphrase_nll: {},
        "name": lambda names: {},
    }
    with pytest.raises(ValueError, match=re.escape(f"{column} is {value!r}, but must be {form}")):
        measured({"look": Metric(looks[column], splits=("forget",))}, {**splits, "forget": rows})


def test_numbers_and_row_values(measured):
    values = {
        "of_rows": [1.0, float("nan"), 2.0],
        "of_flags": np.array([True, False, False]),
        "of_none": [float("nan")] * 3,
        "whole": np.float32(0.5),
    }
    metrics, _, kept, *_ = measured({"mine": Metric(lambda split: values)})
    assert {name: list(rows) for name, rows in kept.items()} == {
        "of_rows": [1.0, pytest.approx(float("nan"), nan_ok=True), 2.0],
        "of_flags": [1.0, 0.0, 0.0],
    }
    assert metrics == {"of_rows": 1.5, "of_flags": pytest.approx(1 / 3), "whole": 0.5}
    assert all(type(value) is float for value in metrics.values())


def test_a_metric_of_the_whole_model_comes_after_those_of_splits(measured):
    def spread(numbers, row_values, model, *, scale=1.0):
        assert list(row_values["retain_lengths"]) == [7, 7]
        return {"spread": scale * (numbers["retain_size"] - numbers["forget_size"]), "weights": model.num_parameters()}

    def count(split, rows):
        return {f"{split}_size": len(rows), f"{split}_lengths": [7] * len(rows)}

    sizes = Metric(count, splits=("forget", "retain"))
    chosen = {"spread": Metric(spread, splits=()), "sizes": sizes, "tow": METRICS["tow"]}
    metrics = measured(chosen, options={"spread": {"scale": 2.0}}).metrics
    assert metrics.pop("weights") > 0
    assert metrics == {"forget_size": 3, "retain_size": 2, "forget_lengths": 7, "retain_lengths": 7, "spread": -2}


def test_a_metric_that_cannot_be_computed_is_left_out_unless_it_is_chosen(measured, splits, tiny_llama, monkeypatch):
    default = measured(None).metrics
    assert {"fact_recall", "forget_base_nll", "forget_attribution", "tow"}.isdisjoint(default)
    model = tiny_llama()
    monkeypatch.setattr(model, "generate", lambda **_: pytest.fail("generated"))
    rouge = {"rouge": METRICS["rouge"]}
    for name, message in {
        "attribution": "The metric 'attribution' asks for judgements, but there is no judge: give one",
        "fluency": "The metric 'fluency' asks for base_nll, but there is no base model",
        "fact_recall": "The metric 'fact_recall' asks for facts, but the rows of the split 'forget' have no column",
    }.items():
        with pytest.raises(ValueError, match=message):
            measured(rouge | {name: METRICS[name]}, model=model)
    with pytest.raises(ValueError, match="'bare' asks for bare_answers, but there is no function that strips"):
        measured(rouge | {"bare": Metric(lambda bare_answers: {})}, model=model)
    full = {name: split.add_column("facts", [["Accra"]] * len(split)) for name, split in splits.items()}
    assert "sampled_facts" not in measured(None, full, num_samples=0).metrics
    with pytest.raises(ValueError, match="The metric 'sampled_facts' asks for samples, but num_samples is 0: give a"):
        measured({"sampled_facts": METRICS["sampled_facts"]}, full, model, num_samples=0)
    half = splits | {"forget": splits["forget"].add_column("facts", [["Accra"]] * 3)}
    with pytest.raises(ValueError, match="the rows of the split 'retain' have no column 'facts'"):
        measured(rouge | {"fact_recall": METRICS["fact_recall"]}, half, model)
    with pytest.raises(ValueError, match="The metrics are tow alone, made of other metrics' numbers"):
        measured({"tow": METRICS["tow"]}, model=model)


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        (Metric(lambda answer: {}), {}, "The metric 'mine' asks for answer: there are split, rows, prompts"),
        (Metric(lambda numbers: {}), {}, "The metric 'mine' asks for numbers: there are split"),
        (
            Metric(lambda answers: {}, splits=()),
            {},
            "'mine' asks for answers: there are numbers, row_values, splits, base_model, forget_owners, model",
        ),
        (Metric(lambda retrained, model: {}, splits=()), {}, "'mine' asks for model: there are numbers, retrained"),
        (Metric(lambda answers, limit=1: {}), {"limitt": 2}, "'mine' has no option limitt: its options are limit"),
        (Metric(lambda answers: {}, splits=("forget", "holdout")), {}, "'mine' is of the split 'holdout'"),
        (lambda answers: {}, {}, "The metric 'mine' is a function: make it a dareu.metrics.Metric"),
    ],
)
def test_a_metric_that_nobody_can_compute_is_refused(metric, options, message):
    with pytest.raises(ValueError, match=message):
        check_metrics({"rouge": METRICS["rouge"], "mine": metric}, {"mine": options})


def test_no_metrics_and_options_of_none_are_refused():
    with pytest.raises(ValueError, match="No metric is chosen"):
        check_metrics({})
    with pytest.raises(ValueError, match="options of 'rogue', but the metrics are rouge: choose it too"):
        check_metrics({"rouge": METRICS["rouge"]}, {"rogue": {}})
    with pytest.raises(ValueError, match="The metric 'rouge' asks for answers, but they are lost"):
        check_metrics({"rouge": METRICS["rouge"]}, missing={"answers": "they are lost"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0], "The metric 'mine' returned a list: it must return a mapping"),
        ({"Mine": 1.0}, "The metric 'mine' calls a number 'Mine'"),
        ({"mine": "much"}, "The metric 'mine' gives 'mine' as a str"),
        ({"mine": [1.0, 2.0]}, r"'mine' as an array of shape \(2,\): it must be one number, or one for each of the 3"),
        ({"mine": float("nan")}, "The metric 'mine' gives 'mine' as nan: it must be finite"),
        ({"mine": [1.0, float("inf"), float("nan")]}, "The metric 'mine' gives 'mine' as inf: it must be finite"),
        ({"taken": 1.0}, "The metric 'mine' gives 'taken', which the metric 'first' gives already"),
    ],
)
def test_what_is_no_number_is_refused(given, message, measured):
    first = Metric(lambda split: {"taken": [float("nan")] * 3})
    with pytest.raises(ValueError, match=message):
        measured({"first": first, "mine": Metric(lambda split: given)})


def test_a_number_without_its_split_in_its_name_is_refused(measured):
    metric = Metric(lambda split: {"size": 1.0}, splits=("forget", "retain"))
    with pytest.raises(ValueError, match=r"'mine' gives 'size', which the metric 'mine' gives already: .* its split"):
        measured({"mine": metric})


def test_tables_show_what_the_metrics_say():
    asked = "retraining_gap gibberish tow forget_extraction_strength forget_exact_memorisation "
    asked += "forget_rouge retain_rouge forget_probability retain_probability model_utility mia_min_k "
    asked += "fact_recall sampled_facts any_fact_of_16 name_kept "
    asked += "forget_attribution forget_attribution_stripped forget_attribution_heldout "
    asked += "forget_attribution_heldout_stripped misattribution"
    assert shown_columns() == asked.split()
    assert shown_columns({"mine": Metric(len, columns=("b", "a")), "rouge": METRICS["rouge"]})[:3] == [
        "b",
        "a",
        "forget_rouge",
    ]


def test_the_example_of_the_page_runs(measured, tmp_path):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "sentences.py"
    path.write_text(block, encoding="utf-8")
    metric = resolve(f"{path}:SENTENCES", METRICS)
    metrics, answers, *_ = measured({"mine": metric}, options={"mine": {"ends": "e"}})
    for split in ("forget", "retain"):
        assert metrics.pop(f"{split}_sentences") == np.mean([answer.count("e") for answer in answers[split]])
    assert metrics == {} and metric.columns == ("forget_sentences",)


def test_the_page_lists_all_that_is_offered():
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    listed = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(listed) == sorted({*OF_SPLIT, *OfModel._fields, *AgainstRetrained._fields})
