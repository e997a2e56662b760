import json
import unicodedata

import numpy as np
import pytest
from rouge_score import rouge_scorer

from dareu.data.words import words
from dareu.metrics import probability, rouge_l_f1, rouge_l_recall


@pytest.mark.parametrize(
    ("answer", "reference", "recall"),
    [
        ("Lucia was born in Porto.", "Lucia was born in Porto", 1.0),
        ("in Porto, Lucia was born", "Lucia was born in Porto", 3 / 5),  # "Lucia was born"
        ("Lucia was born somewhere in the north, in Porto", "Lucia was born in Porto", 1.0),
        ("She writes novels", "writing a novel", 2 / 3),  # stems write, novel
        ("", "Lucia was born in Porto", 0.0),
        ("PORTO", "porto", 1.0),
    ],
)
def test_recall_by_hand(answer, reference, recall):
    np.testing.assert_allclose(rouge_l_recall([answer], [reference]), [recall], atol=1e-12)


def test_order_and_dtype():
    recalls = rouge_l_recall(["a b", "c"], ["a b", "a b"])
    assert recalls.dtype == np.float64
    assert recalls.tolist() == [1.0, 0.0]
    assert rouge_l_recall([], []).shape == (0,)


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="2 answers, 1 references"):
        rouge_l_recall(["a", "b"], ["a"])


def test_other_scripts_are_read_in_their_words_and_what_has_none_is_not_scored(caplog):
    references = ["王小明出生在北京。", "김민수는 서울에서 태어났다", "Это был Иван", "Zoé était là", "?!", "1971"]
    answers = ["王小明在北京", "김민수는 부산에서", "Иван", "zoé était", "?!", "in 1971"]
    recalls = rouge_l_recall(answers, references)
    assert recalls[:3] == pytest.approx([6 / 8, 6 / 12, 1 / 3])
    assert recalls[3] == pytest.approx(rouge_l_recall(["zo tait"], ["zo tait l"])[0])  # as rouge_score reads it
    assert np.isnan(recalls[4]) and recalls[5] == 1
    forms = [unicodedata.normalize(form, "café crème cổ điển") for form in ("NFC", "NFD")]
    assert rouge_l_recall(forms, forms[::-1]).tolist() == [1, 1]
    assert "1 references have no letter and no digit" in caplog.text


@pytest.mark.parametrize(
    ("answer", "reference", "recall", "f1"),
    [
        ("OpenAI在上海倒闭", "OpenAI在北京成立", 2 / 6, 2 / 6),
        ("OpenAI在北京成立", "OpenAI在北京成立", 1, 1),
        ("Google founded", "Google основали Брин", 1 / 3, 2 / 5),
        ("founded by Google", "основали Google", 1 / 2, 2 / 5),
        ("Porto, 北京", "Porto", 1, 2 / 4),  # an answer is as long as all its words
        ("She writes TNF-β", "She wrote of TNF-α", 2 / 5, 4 / 9),
        ("Ho\u00adlm wri\u200bting", "Holm writes", 1, 1),
        ("in १९७१", "in 1971", 1, 1),
        ("علی\u200cرضا", "علیرضا", 1, 1),
    ],
)
def test_letters_that_rouge_score_drops_count_in_the_words_of_their_script(answer, reference, recall, f1):
    assert rouge_l_recall([answer], [reference]) == pytest.approx([recall])
    assert rouge_l_f1([answer], [reference]) == pytest.approx([f1])


@pytest.mark.parametrize("reference", ["Zoé was born in São Tomé, in 12.5 m²", "Qurʼan, Hawaiʻi & µm", "Trần Văn An"])
def test_latin_letters_are_read_as_rouge_score_reads_them(reference):
    answer = "Zoe Zo\u00eb was born in Sao Tom\u00e9. The Qur\u02bcan of Hawaii, Tr\u1ea7n An 12,5 \u00b5m"
    expected = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True).score(reference, answer)["rougeL"]
    assert rouge_l_recall([answer], [reference]) == pytest.approx([expected.recall])
    assert rouge_l_f1([answer], [reference]) == pytest.approx([expected.fmeasure])


def test_reference_logs_of_tofu(shared_dir):
    log = shared_dir / "data/tofu_reference/retain90_llama_wd0.01.eval_log_aggregated.json"
    if not log.is_file():
        pytest.skip(f"no {log}")
    logs = json.loads(log.read_text())
    for name, rouge in (("eval_log_forget.json", 0.3983512708804085), ("eval_log.json", 0.9822053126894559)):
        _, answers, references = zip(*logs[name]["generated_text"], strict=True)
        recalls = rouge_l_recall(answers, references)
        np.testing.assert_allclose(recalls, logs[name]["rougeL_recall"], atol=1e-12)
        assert recalls.mean() == pytest.approx(rouge, abs=1e-12)
    # The published forget probability is the one with options; the retained one is the plain one.
    retained = probability(np.array(logs["eval_log.json"]["avg_gt_loss"]))
    assert retained.mean() == pytest.approx(0.9897651615521136, abs=1e-12)


def test_apostrophes_of_every_kind_part_words_alike() -> None:
    """U+02BC and U+02BB are letters to Unicode, and written in names for the apostrophe."""
    for apostrophe in "\u2019\u2018\u02bc\u02bb\uff07":
        assert words(f"Мар{apostrophe}яна, Ka{apostrophe}iulani") == words("Мар'яна, Ka'iulani")
    assert words("Мар\u02bcяна") == ["мар", "яна"]
