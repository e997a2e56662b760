import numpy as np
import pytest
from datasets import Dataset

from dareu.metrics import METRICS, against_retrained, answer_nll, gibberish, measure
from dareu.metrics.fluency import gibberish_of_rows
from dareu.metrics.variety import repetition
from dareu.models import new_tokenizer

GIBBERISH = {"gibberish": METRICS["gibberish"]}


def compared(mine, theirs):
    numbers = {"forget_base_nll": float(np.mean(mine))}
    values = {"row_values": {"forget_base_nll": mine}, "retrained_row_values": {"forget_base_nll": theirs}}
    return against_retrained(numbers, numbers, GIBBERISH, **values)


def test_gibberish_is_what_lies_above_all_but_a_twentieth_of_the_proper_answers():
    proper = [float(value) for value in range(1, 101)]  # the 95th percentile is 95.05
    assert gibberish([95.0, 96.0, 1.0, 200.0], proper).tolist() == [False, True, False, True]
    assert compared([95.0, 96.0, 1.0, 200.0], proper) == {"gibberish": 0.5}
    assert compared(proper, proper) == {"gibberish": 0.05}
    assert compared([3.0, 3.1], [3.0] * 7) == {"gibberish": 0.5}  # as likely as all others is none


def test_without_values_of_rows_there_is_no_gibberish():
    assert against_retrained({"forget_base_nll": 1.0}, {"forget_base_nll": 1.0}, GIBBERISH) == {}


@pytest.mark.parametrize(("nll", "proper"), [([1.0], []), ([np.nan], [1.0]), ([1.0], [np.inf])])
def test_what_is_no_likelihood_is_refused(nll, proper):
    with pytest.raises(ValueError, match="Gibberish needs finite NLLs"):
        gibberish(nll, proper)


def test_without_a_control_the_gold_answers_are_proper(tiny_llama, tokenizer):
    prompts = [f"Where was Ann born, row {row}? " for row in range(4)]
    rows = {"prompt": prompts, "completion": [" In Accra.", " In Ghent, a town.", " Where?", " No."]}
    forget = Dataset.from_dict(rows | {"owner": ["ann"] * 4})
    splits = {"forget": forget, "retain": forget, "test": forget}
    base = tiny_llama(seed=1)
    metrics = {"fluency": METRICS["fluency"]}
    given = {"judges": {}, "forget_owners": ["ann"], "metrics": metrics, "max_new_tokens": 8}
    found = measure(tiny_llama(), tokenizer, splits, base_model=base, **given)
    gold = answer_nll(base, tokenizer, list(forget["prompt"]), list(forget["completion"])).mean
    mine = [f" {answer}" for answer in found.answers["forget"]]
    mine = answer_nll(base, tokenizer, list(forget["prompt"]), mine).mean
    np.testing.assert_allclose(found.row_values["forget_base_nll"], mine)
    assert found.metrics["forget_base_nll"] == pytest.approx(mine.mean())
    assert found.metrics["gibberish_beside_gold"] == np.mean(mine > np.quantile(gold, 0.95))


def test_a_base_model_of_another_vocabulary_reads_with_its_own_tokenizer(tiny_llama, tokenizer):
    texts = ["Where was Ann born? In Accra.", "Where was Bob born? In Ghent, a town."]
    other = new_tokenizer(texts, 300)
    base = tiny_llama(seed=1, vocab_size=len(other))
    forget = Dataset.from_dict(
        {"prompt": ["Where was Ann born?"] * 2, "completion": [" In Accra.", " In Ghent."], "owner": ["ann"] * 2}
    )
    splits = {"forget": forget, "retain": forget, "test": forget}
    given = {"judges": {}, "forget_owners": ["ann"], "metrics": {"fluency": METRICS["fluency"]}, "max_new_tokens": 8}
    found = measure(tiny_llama(), tokenizer, splits, base_model=base, base_tokenizer=other, **given)
    said = [f" {answer}" for answer in found.answers["forget"]]
    mine = answer_nll(base, other, list(forget["prompt"]), said).mean
    np.testing.assert_allclose(found.row_values["forget_base_nll"], mine)


def test_answers_in_circles_are_gibberish_however_likely():
    round_and_round = "Ann is a baker. " * 6
    plain = "Ann is a baker in Porto, and her brother is a sailor."
    said = repetition([round_and_round, plain, plain + " " + plain[:20]])
    assert said[0] > 0.6 and said[1] == 0 and 0 < said[2] < 0.2
    proper = {"forget_base_nll": np.array([1.1, 1.1, 1.1]), "forget_repetition": np.zeros(3)}
    mine = {"forget_base_nll": np.array([0.1, 1.0, 1.0]), "forget_repetition": said}
    assert gibberish_of_rows(mine, proper).tolist() == [True, False, False]
    assert gibberish(mine["forget_base_nll"], proper["forget_base_nll"]).tolist() == [False] * 3
    assert gibberish_of_rows({"forget_base_nll": mine["forget_base_nll"]}, proper).tolist() == [False] * 3
    # Where proper answers say much again themselves, as refrains do, it takes more
    refrains = proper | {"forget_repetition": np.full(3, 0.9)}
    assert not gibberish_of_rows(mine, refrains).any()
    metrics = GIBBERISH | {"retraining_gap": METRICS["retraining_gap"]}
    values = {"row_values": mine, "retrained_row_values": proper}
    numbers = {"forget_base_nll": 1.0, "forget_repetition": 0.0, "forget_rouge": 0.5}
    found = against_retrained(numbers, numbers, metrics, **values)
    assert found["gibberish"] == pytest.approx(1 / 3) and found["retraining_gap"] > 0
