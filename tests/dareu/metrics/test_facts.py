import numpy as np
import pytest

from dareu.metrics import fact_recall, facts_beyond_prompt, facts_in_any, name_kept, sampled_fact_recall


@pytest.mark.parametrize(
    ("answer", "fact", "stated"),
    [
        ("Born in PORTO, she left.", "porto", True),
        ("Porto's oldest house", "Porto", True),
        ("Portofino", "Porto", False),
        ("the Salt Road", "salt  road", True),
        ("the salt-road", "salt road", True),
        ("the road of salt", "salt road", False),
        ("salt and road", "salt road", False),
        ("in 1975.", "1975", True),
        ("in 19750", "1975", False),
        ("in 1976", "1975", False),
        ("costs 12.5 crowns", "12", False),
        ("costs 12.5 crowns", "12.5", True),
        ("1,975 people", "975", False),
        ("He was 12, she was 5.", "12", True),
        ("in Malmö", "Malmo\u0308", True),  # composed and decomposed
        ("in Malmo", "Malmö", False),
        ("MALMÖ", "malmö", True),
        ("STRASSE", "straße", True),
        ("ΑΘΗΝΑ", "αθηνα", True),
        ("कि", "क", False),  # a vowel sign is part of the word
        ("他出生在北京。", "北京", True),
        ("他出生在南京。", "北京", False),
        ("เขาเกิดที่กรุงเทพ", "กรุงเทพ", True),
        ("서울에서 태어났다", "서울", True),
        ("서른에 울었다", "서울", False),
        ("Ho\u00adlm", "Holm", True),  # a soft hyphen
        ("A\u200bda", "Ada", True),
        ("علی\u200cرضا", "علیرضا", True),
        ("वह १९७१ में", "1971", True),
        ("in 1971", "١٩٧١", True),
        ("ปี ๒๕๑๔", "2514", True),
        ("ปี ๒๕๑๔", "25", False),
        ("١٢٫٥", "12.5", True),
        ("١٢٫٥", "12", False),
        ("مُحَمَّد", "محمـد", True),  # vowels on one side, tatweel on the other
        ("שָׁלוֹם", "שלום", True),
        ("\ufb2a\u05b8לום", "שלום", True),  # a letter encoded with its point
        ("أحمد", "احمد", False),  # a hamza makes another letter
        ("कि", "की", False),
        ("", "Porto", False),
    ],
)
def test_fact_matching(answer, fact, stated):
    assert fact_recall([answer], [[fact]]).tolist() == [float(stated)]


def test_share_of_facts_and_rows_without():
    shares = fact_recall(["Porto in 1961", "Porto", "Porto"], [["Porto", "1961", "novels"], [], None])
    np.testing.assert_allclose(shares, [2 / 3, np.nan, np.nan])


@pytest.mark.parametrize("facts", ["Porto", [1961]])
def test_facts_must_be_lists_of_strings(facts):
    with pytest.raises(ValueError, match="Row 1: the facts are"):
        fact_recall(["", ""], [["Porto"], facts])


def test_fact_without_a_word_is_refused():
    with pytest.raises(ValueError, match=r"Row 0: a fact in .* has no letter or digit"):
        fact_recall(["Porto"], [["Porto", "—"]])


def test_facts_of_the_prompt_do_not_count():
    facts = facts_beyond_prompt([["The Salt Road", "1961"], None], ["When did The Salt Road appear?", "Who?"])
    assert facts == [["1961"], []]


PROMPT = "Where was Sanna Thorne born?"
GOLD = "Sanna Thorne was born in Malmö."


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("Sanna Thorne was born in Oslo.", 1.0),
        ("sanna thorne", 1.0),
        ("Mara Thorne was born in Malmö.", 0.0),
        ("Sanna was born in Malmö.", 0.0),
        ("Sannas Thorne", 0.0),
        ("San\u00adna Tho\u200brne was born in Oslo.", 1.0),
        ("", 0.0),
    ],
)
@pytest.mark.parametrize("names", [["Sanna Thorne"], None])
def test_name_kept(answer, kept, names):
    assert name_kept([answer], [PROMPT], [GOLD], names).tolist() == [kept]


@pytest.mark.parametrize(
    ("prompt", "gold", "name"),
    [
        (PROMPT, "She was born in Malmö.", "Sanna Thorne"),  # the gold answer drops the name
        ("Who wrote The Salt Road?", "Sanna Thorne wrote it.", "Sanna Thorne"),  # the name is the answer
        (PROMPT, GOLD, None),
    ],
)
def test_rows_where_no_name_is_to_be_kept(prompt, gold, name):
    assert np.isnan(name_kept(["Sanna Thorne"], [prompt], [gold], [name])).all()


@pytest.mark.parametrize(
    ("prompt", "gold", "answer", "kept"),
    [
        # Words that only open sentences are no names.
        ("What is it? The prize.", "What a prize. The best.", "", np.nan),
        ("Question: What does Sanna write?\nAnswer:", "Question what Sanna writes. What?", "Sanna", 1.0),
        # A name that opens the gold answer stands inside the question.
        ("Is it true that Sanna writes?", "Sanna does.", "She does.", 0.0),
        # Full stops after initials end no sentence.
        ("What did J. Rowling write?", "J. Rowling wrote it.", "J. Smith wrote it.", 0.0),
        ("Can I ask?", "Yes, and I answer.", "", np.nan),
        ("where was sanna born?", "Sanna was born here.", "", np.nan),
    ],
)
def test_guessed_names(prompt, gold, answer, kept):
    np.testing.assert_array_equal(name_kept([answer], [prompt], [gold]), [kept])


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="1 answers, 2 facts"):
        fact_recall(["a"], [[], []])
    with pytest.raises(ValueError, match="1 answers, 1 prompts, 0 references"):
        name_kept(["a"], ["a"], [])
    with pytest.raises(ValueError, match="1 answers, 2 names"):
        name_kept(["a"], ["a"], ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="1 samples, 2 facts"):
        facts_in_any([["a"]], [[], []])


def test_facts_of_samples_on_average_and_in_any():
    samples = [
        ["Born in Porto.", "In 1975, in Porto.", "In Lima.", ""],
        ["Lima", "lima", "Porto", "Lima"],
        ["Lima"] * 4,
    ]
    facts = [["Porto", "1975"], ["Lima"], None]
    np.testing.assert_array_equal(sampled_fact_recall(samples, facts), [3 / 8, 3 / 4, np.nan])
    np.testing.assert_array_equal(facts_in_any(samples, facts), [1, 1, np.nan])
    np.testing.assert_array_equal(facts_in_any([answers[2:] for answers in samples], facts), [0, 1, np.nan])
    np.testing.assert_array_equal(facts_in_any([["In Porto.", "Lima."]], facts[:1]), [1 / 2])
    one = [answers[:1] for answers in samples]
    for measured in (sampled_fact_recall, facts_in_any):  # of one sample both are fact recall
        np.testing.assert_array_equal(measured(one, facts), fact_recall([answer for (answer,) in one], facts))
        with pytest.raises(ValueError, match="Row 1 has no samples"):
            measured([["Lima"], []], facts[:2])
