import json
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import ks_2samp

from dareu.metrics import (
    METRICS,
    Metric,
    against_retrained,
    answer_nll,
    forget_quality,
    forgotten_share,
    known_share,
    measure,
    model_utility,
    option_probability,
    probability,
    truth_ratio,
)
from dareu.metrics.utility import MODEL_UTILITY


@pytest.fixture(scope="module")
def logs(shared_dir):
    """Values of rows of the public model that was retrained on 90 % of TOFU, and of another retrained on 95 %."""
    folder = shared_dir / "data" / "tofu_reference"
    return [json.loads((folder / f"retain{n}_llama_wd0.01.eval_log_aggregated.json").read_text()) for n in (90, 95)]


@pytest.fixture(scope="module")
def published(shared_dir):
    lines = (shared_dir / "data/tofu_reference/retain90_llama_wd0.01.aggregated_stat.csv").read_text().splitlines()
    names, values = (line.split(",") for line in lines[:2])
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def test_published_numbers_of_tofu(logs, published):
    parts = []
    for file, name in (
        ("eval_log.json", "Retain"),
        ("eval_real_author_wo_options.json", "Real Authors"),
        ("eval_real_world_wo_options.json", "Real World"),
    ):
        log = logs[0][file]
        ratio = known_share(truth_ratio(log["avg_paraphrased_loss"], log["average_perturb_loss"])).mean()
        if name == "Retain":
            share = probability(log["avg_gt_loss"]).mean()
        else:
            share = option_probability(log["avg_gt_loss"], log["average_perturb_loss"]).mean()
        found = {"Probability": share, "ROUGE": np.mean(log["rougeL_recall"]), "Truth Ratio": ratio}
        for part, value in found.items():
            assert value == pytest.approx(published[f"{name} {part}"], abs=1e-6), (name, part)
        parts += found.values()
    assert model_utility(parts) == pytest.approx(published["Model Utility"], abs=1e-6)
    assert published["Model Utility"] == pytest.approx(0.620344, abs=1e-6)

    forget = logs[0]["eval_log_forget.json"]
    ratio = truth_ratio(forget["avg_paraphrased_loss"], forget["average_perturb_loss"])
    assert forgotten_share(ratio).mean() == pytest.approx(0.669435, abs=1e-6)
    assert forget_quality(ratio, ratio) == published["Forget Quality"] == 1


def test_forget_quality_is_the_test_of_kolmogorov_and_smirnov(logs):
    ratios = []
    for log in logs:
        forget = log["eval_log_forget.json"]
        ratios.append(truth_ratio(forget["avg_paraphrased_loss"], forget["average_perturb_loss"]))
    assert forget_quality(*ratios) == ks_2samp(*ratios).pvalue < 1
    with_gap = np.append(ratios[0], np.nan)
    assert forget_quality(with_gap, ratios[1]) == forget_quality(*ratios)
    with pytest.raises(ValueError, match="a truth ratio of both models"):
        forget_quality([np.nan], ratios[1])


def test_rows_without_wrong_answers_have_none():
    ratio = truth_ratio([1.0, 2.0], [[2.0, 4.0], []])
    np.testing.assert_allclose(ratio, [np.exp(-3) / (np.exp(-1) + 1e-10), np.nan])
    np.testing.assert_allclose(option_probability([1.0, 2.0], [[1.0, 1.0, 1.0], []]), [0.25, np.nan])
    np.testing.assert_allclose(option_probability([9000.0], [[1.0]]), [0])
    np.testing.assert_allclose(forgotten_share([0.0, 0.5, 4.0, np.nan]), [0, 0.5, 0.25, np.nan])
    np.testing.assert_allclose(known_share([0.0, 0.5, 4.0, np.nan]), [1, 0.5, 0, np.nan])
    with pytest.raises(ValueError, match="2 right, 1 wrong"):
        truth_ratio([1.0, 2.0], [[1.0]])


def test_utility_of_nothing_or_of_no_share_is_refused():
    assert model_utility([0.5, 1.0]) == pytest.approx(2 / 3) and model_utility([0.0, 1.0]) == 0
    with pytest.raises(ValueError, match="no parts"):
        model_utility([])
    with pytest.raises(ValueError, match="a part of nan"):
        model_utility([float("nan")])


def test_a_test_row_without_a_part_is_of_a_part_of_its_own():
    names = ("rouge", "probability", "truth_ratio", "option_probability")
    row_values = {f"{split}_{name}": np.full(3, 0.5) for split in ("retain", "test") for name in names}
    splits = {
        "retain": SimpleNamespace(rows=Dataset.from_dict({"prompt": ["?"] * 3})),
        "test": SimpleNamespace(rows=Dataset.from_dict({"subset": ["people", None, None]})),
    }
    assert MODEL_UTILITY.compute(row_values, splits) == {"model_utility": 0.5}
    row_values["test_rouge"] = np.array([0.5, 0.5, 1.0])
    assert MODEL_UTILITY.compute(row_values, splits)["model_utility"] == model_utility([0.5] * 8 + [0.75])


def rows(owner, **columns):
    number = len(columns["paraphrase"])
    texts = {"prompt": [f"Where was {owner} {n} born?" for n in range(number)], "completion": [" In Accra."] * number}
    return Dataset.from_dict({**texts, "owner": [owner] * number, **columns})


def test_measured_of_a_model(tiny_llama, tokenizer):
    model, wrong = tiny_llama(), [" In Porto.", " In Malmo, near the sea."]
    splits = {
        "forget": rows("ann", paraphrase=[" It was Accra.", None], perturbed=[wrong, wrong[:1]]),
        "retain": rows("bob", paraphrase=[None, " "], perturbed=[[], ["", *wrong]]),  # blanks are none
        "test": rows("none", paraphrase=[None] * 3, perturbed=[wrong] * 3, subset=["people", "world", "world"]),
    }
    names = ["rouge", "probability", "option_probability", "truth_ratio", "model_utility", "forget_quality"]
    settings = {"judges": {}, "forget_owners": ["ann"], "max_new_tokens": 4}
    found = measure(
        model,
        tokenizer,
        splits,
        metrics={name: METRICS[name] for name in names if name != "forget_quality"},
        **settings,
    )

    def nll(split, row, *texts):
        prompt = splits[split][row]["prompt"]
        return answer_nll(model, tokenizer, [prompt] * len(texts), list(texts)).mean

    first = truth_ratio(nll("forget", 0, " It was Accra."), [nll("forget", 0, *wrong)])
    second = truth_ratio(nll("forget", 1, " In Accra."), [nll("forget", 1, wrong[0])])  # without a paraphrase
    expected = np.concatenate([first, second])
    np.testing.assert_allclose(found.row_values["forget_wrong_to_right"], expected, rtol=1e-4)
    np.testing.assert_allclose(found.row_values["forget_truth_ratio"], np.minimum(expected, 1 / expected), rtol=1e-4)
    retained = found.row_values["retain_truth_ratio"]
    assert np.isnan(retained[0]) and found.metrics["retain_truth_ratio"] == retained[1]
    people, *world = found.row_values["test_option_probability"]
    np.testing.assert_allclose(
        people, option_probability(nll("test", 0, " In Accra."), [nll("test", 0, *wrong)]), rtol=1e-4
    )
    parts = [found.metrics[f"retain_{name}"] for name in ("probability", "rouge", "truth_ratio")]
    for name in ("option_probability", "rouge", "truth_ratio"):
        values = found.row_values[f"test_{name}"]
        parts += [values[0], values[1:].mean()]
    assert found.metrics["model_utility"] == pytest.approx(model_utility(parts)) and len(world) == 2

    against = against_retrained(
        found.metrics,
        found.metrics,
        {"forget_quality": METRICS["forget_quality"]},
        row_values=found.row_values,
        retrained_row_values=found.row_values,
    )
    assert against == {"forget_quality": 1.0}

    bare = splits | {"retain": splits["retain"].select([0])}
    lacking = measure(
        model, tokenizer, bare, metrics={n: METRICS[n] for n in names if n != "forget_quality"}, **settings
    )
    assert "model_utility" not in lacking.metrics and "retain_truth_ratio" in lacking.left_out


def test_the_same_for_a_metric_of_the_whole_model(tiny_llama, tokenizer):
    wrong = [" In Porto.", " In Malmo, near the sea."]
    some = rows("ann", paraphrase=[" It was Accra.", None], perturbed=[wrong, []])
    seen = {}

    def look(splits):
        seen["found"] = splits["forget"].paraphrase_nll, splits["forget"].wrong_nll
        return {}

    of_split = Metric(lambda paraphrase_nll, wrong_nll: seen.update(expected=(paraphrase_nll, wrong_nll)) or {})
    settings = {"judges": {}, "forget_owners": ["ann"]}
    for metric in (Metric(look, splits=()), of_split):
        # A metric of the whole model says nothing beforehand of what it reads
        splits = dict.fromkeys(("forget", "retain", "test"), some)
        measure(tiny_llama(), tokenizer, splits, metrics={"mine": metric}, **settings)
    for found, expected in zip(*(seen[name][1] for name in ("found", "expected")), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(seen["found"][0], seen["expected"][0], atol=1e-5)
    assert [len(each) for each in seen["found"][1]] == [2, 0]
