import pytest

from dareu.report._verdict import Outcome, Standing, judge, told_by_owner


def standing(width: float = 0.02, **numbers: float) -> Standing:
    """Numbers with intervals of that half width."""
    return Standing(numbers, {name: [value - width, value + width] for name, value in numbers.items()})


TARGET = standing(fact_recall=0.9, forget_probability=0.9, retain_rouge=0.95)
RETRAINED = standing(fact_recall=0.1, forget_probability=0.5, retain_rouge=0.95)


def test_what_is_at_the_controls_level_by_all_measures_is_forgotten() -> None:
    outcome, sentence = judge(
        standing(fact_recall=0.12, forget_probability=0.5, retain_rouge=0.94), TARGET, None, RETRAINED
    )
    assert outcome is Outcome.FORGOTTEN
    assert sentence == (
        "It states 0.12 (0.10 to 0.14) of the facts that it is asked for, the target 0.90 (0.88 to 0.92), the "
        "retrained model 0.10 (0.08 to 0.12): as little as there, by all 2 measures that can tell; what is retained "
        "was kept: words of retained answers 0.94 (0.92 to 0.96), the target 0.95 (0.93 to 0.97)."
    )


def test_what_is_left_by_another_measure_is_told() -> None:
    outcome, sentence = judge(standing(fact_recall=0.1, forget_probability=0.7), TARGET, None, RETRAINED)
    assert outcome is Outcome.PARTLY and "more than there is left of the old answers' probability" in sentence
    assert "what is retained was not measured" in sentence


def test_between_both_a_part_is_forgotten() -> None:
    assert judge(standing(fact_recall=0.5), TARGET, None, RETRAINED).outcome is Outcome.PARTLY


def test_less_than_the_control_is_said_to_be_less() -> None:
    outcome, sentence = judge(standing(fact_recall=0.0), TARGET, None, RETRAINED)
    assert outcome is Outcome.FORGOTTEN and "as little as there or less" in sentence


def test_nothing_forgotten_is_said_first() -> None:
    outcome, sentence = judge(standing(fact_recall=0.88, retain_rouge=0.95), TARGET, None, RETRAINED)
    assert outcome is Outcome.NOTHING and sentence.startswith("Nothing was forgotten that the numbers show:")
    assert judge(standing(fact_recall=0.88), TARGET).outcome is Outcome.NOTHING  # without any control too


def test_too_wide_intervals_tell_nothing() -> None:
    wide = [standing(0.45, fact_recall=value) for value in (0.5, 0.9, 0.1)]
    outcome, sentence = judge(wide[0], wide[1], None, wide[2])
    assert outcome is Outcome.UNTOLD and sentence.startswith("Too few rows")


def test_the_base_model_stands_in_and_is_named() -> None:
    outcome, sentence = judge(standing(fact_recall=0.1), TARGET, standing(fact_recall=0.1))
    assert outcome is Outcome.FORGOTTEN and "the base model 0.10" in sentence
    assert (
        "the base model" not in judge(standing(fact_recall=0.1), TARGET, standing(fact_recall=0.3), RETRAINED).sentence
    )


def test_without_control_it_is_only_less() -> None:
    outcome, sentence = judge(standing(fact_recall=0.1), TARGET)
    assert outcome is Outcome.LESS and "was not measured" in sentence


def test_a_target_that_knew_nothing_had_nothing_to_forget() -> None:
    outcome, sentence = judge(standing(fact_recall=0.1), standing(fact_recall=0.12), None, standing(fact_recall=0.1))
    assert outcome is Outcome.NO_TASK and "nothing to forget" in sentence
    assert judge(standing(fact_recall=0.0), standing(fact_recall=0.01)).outcome is Outcome.NO_TASK


@pytest.mark.parametrize("broken", ["gibberish_beside_gold", "forget_repetition", "forget_empty"])
def test_broken_language_goes_before_what_was_forgotten(broken: str) -> None:
    model = standing(fact_recall=0.0, **{broken: 0.6})
    control = standing(fact_recall=0.1, **{broken: 0.05})
    outcome, sentence = judge(model, TARGET, None, control)
    assert outcome is Outcome.BROKEN and sentence.startswith("Answers are no longer language: 0.60")
    assert judge(standing(fact_recall=0.0, **{broken: 0.1}), TARGET, None, control).outcome is Outcome.FORGOTTEN


def test_lost_knowledge_goes_before_what_was_forgotten() -> None:
    outcome, sentence = judge(standing(fact_recall=0.1, retain_rouge=0.5), TARGET, None, RETRAINED)
    assert outcome is Outcome.LOST and "retained knowledge was lost: words of retained answers 0.50" in sentence
    outcome, sentence = judge(standing(fact_recall=0.1, retain_rouge=0.88), TARGET, None, RETRAINED)
    assert outcome is Outcome.FORGOTTEN and "a little of what is retained was lost" in sentence


def test_blame_moved_to_others_is_told() -> None:
    control = standing(fact_recall=0.1, misattribution=0.1)
    assert "blamed on others" in judge(standing(fact_recall=0.1, misattribution=0.4), TARGET, None, control).sentence
    assert "blamed" not in judge(standing(fact_recall=0.1, misattribution=0.12), TARGET, None, control).sentence


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge(None, TARGET).outcome is judge(TARGET, None).outcome is Outcome.UNMEASURED
    assert judge(standing(retain_rouge=0.9), standing(retain_rouge=0.9)).outcome is Outcome.UNMEASURED


def test_what_attacks_bring_back_is_told_and_leads_where_it_is_much() -> None:
    model = standing(fact_recall=0.1)
    for leak, outcome, said in (
        (0.05, Outcome.FORGOTTEN, "no attack that was made brings back more than 10%"),
        (0.15, Outcome.FORGOTTEN, "an attack brings back 15% of what was forgotten (few shot, 4-shot)"),
        (0.4, Outcome.RETURNS, "an attack brings back 40% of what was forgotten (few shot, 4-shot)"),
    ):
        found = judge(model, TARGET, None, RETRAINED, ("few shot, 4-shot", leak))
        assert found.outcome is outcome and said in found.sentence
    part = judge(standing(fact_recall=0.5), TARGET, None, RETRAINED, ("few shot, 4-shot", 0.4))
    assert part.outcome is Outcome.PARTLY


def test_a_number_far_from_the_controls_is_not_at_its_level_for_a_wide_interval() -> None:
    model = Standing(
        {"fact_recall": 0.45, "retain_rouge": 0.5}, {"fact_recall": [0.05, 0.85], "retain_rouge": [0.2, 0.97]}
    )
    control = Standing({"fact_recall": 0.1}, {"fact_recall": [0.0, 0.2]})
    outcome, sentence = judge(model, TARGET, None, control)
    assert outcome is Outcome.UNTOLD and "Too few rows were measured to tell how much was forgotten" in sentence
    assert "too few rows were measured to tell whether what is retained was kept" in sentence


def test_single_owners_are_told_of_beside_the_mean() -> None:
    whole = judge(standing(fact_recall=0.1, retain_rouge=0.95), TARGET, None, RETRAINED)
    assert whole.outcome is Outcome.FORGOTTEN and told_by_owner(whole, 0, 0) == whole
    one = told_by_owner(whole, 1, 2)
    assert one.outcome is Outcome.PARTLY
    assert one.sentence.endswith("; but 1 of the owners to forget is still told of and 2 forgotten earlier come back.")
    lost = judge(standing(fact_recall=0.1, retain_rouge=0.1), TARGET, None, RETRAINED)
    assert told_by_owner(lost, 2, 0).outcome is Outcome.LOST
