import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dareu.rewards import DeattributionReward, linear_transform, log_transform


class Keywords:
    """P(owner) from the words of a text: each owner's word counts 3, plus 1 for everyone."""

    classes_ = np.array(["ann", "bob", "none"])

    def predict_proba(self, texts: Any) -> NDArray[np.float64]:
        counts = np.array([[1 + 3 * t.count("apple"), 1 + 3 * t.count("banana"), 1] for t in texts], dtype=float)
        return counts / counts.sum(axis=1, keepdims=True)


def test_chi_has_the_papers_values() -> None:
    b = np.array([0.0, 0.1, 0.5, 0.65, 0.9, 1.0])
    np.testing.assert_allclose(log_transform(b), [0.0, -0.1003, -0.6601, -0.9998, -1.0, -1.0], atol=1e-4)
    assert (np.diff(log_transform(np.linspace(0, 1, 101))) <= 0).all()


def test_sequence_score_is_the_transform_of_the_summed_forget_probability() -> None:
    reward = DeattributionReward(Keywords(), ["ann", "bob"], transform="linear", hide_echo=False)
    assert reward(prompts=["?", "?"], completions=["apple", "pear"]) == pytest.approx([-5 / 6, -2 / 3])
    # Moving blame from one forgotten owner to another gains nothing.
    assert reward(prompts=["?"], completions=["banana"]) == pytest.approx([-5 / 6])


def test_an_owner_who_is_named_twice_counts_once() -> None:
    reward = DeattributionReward(Keywords(), ["ann", "ann"], transform="linear", hide_echo=False)
    assert reward(prompts=["?"], completions=["apple"]) == pytest.approx([-4 / 6])


def test_the_own_owner_alone_is_scored_on_request() -> None:
    reward = DeattributionReward(Keywords(), ["ann", "bob"], transform="linear", hide_echo=False, scored_owners="own")
    scores = reward(prompts=["?", "?"], completions=["banana", "banana"], owner=["ann", "bob"])
    assert scores == pytest.approx([-1 / 6, -4 / 6])
    with pytest.raises(ValueError, match="needs the column 'owner'"):
        reward(prompts=["?"], completions=["apple"])
    with pytest.raises(ValueError, match="'zoe' of a row is none of forget_owners: ann, bob"):
        reward(prompts=["?"], completions=["apple"], owner=["zoe"])


def test_dense_scores_are_those_of_the_cut_texts_and_end_with_the_sequence_score() -> None:
    reward = DeattributionReward(Keywords(), ["ann"], hide_echo=False)
    text = "an apple a day, apple"
    ends = [2, 8, 15, len(text)]
    dense = reward.at(["?"], [text], [ends])[0]
    assert dense == pytest.approx([reward(["?"], [text[:end]])[0] for end in ends])
    assert dense[-1] == pytest.approx(reward(["?"], [text])[0])
    assert dense[1] < dense[0]


def test_words_of_the_prompt_are_hidden() -> None:
    prompt, answer = "Where did apple go?", "The apple went home."
    shown = DeattributionReward(Keywords(), ["ann"], hide_echo=False)
    hidden = DeattributionReward(Keywords(), ["ann"])
    assert hidden([prompt], [answer])[0] > shown([prompt], [answer])[0]
    assert hidden([prompt], [answer]) == pytest.approx(shown([prompt], ["went home."]))
    assert hidden(["?"], [answer]) == pytest.approx(shown(["?"], [answer]))


def test_chat_messages_score_like_strings() -> None:
    reward = DeattributionReward(Keywords(), ["ann"])
    chat = reward([[{"role": "user", "content": "Which fruit?"}]], [[{"role": "assistant", "content": "an apple"}]])
    assert chat == reward(["Which fruit?"], ["an apple"])


def test_it_tells_trl_the_mean_attribution() -> None:
    logged: dict[str, float] = {}
    reward = DeattributionReward(Keywords(), ["ann"], hide_echo=False)
    reward(["?", "?"], ["apple", ""], log_metric=logged.__setitem__)
    assert logged == {"forget_attribution": pytest.approx((4 / 6 + 1 / 3) / 2)}


def test_it_can_be_pickled() -> None:
    reward = pickle.loads(pickle.dumps(DeattributionReward(Keywords(), ["ann"], name="mine")))
    assert reward.__name__ == "mine" and reward(["?"], ["apple"])[0] < -0.9


def test_linear_transform_keeps_a_slope_where_chi_saturates() -> None:
    b = np.array([0.7, 0.9])
    assert log_transform(b)[0] == log_transform(b)[1]
    assert linear_transform(b)[0] > linear_transform(b)[1]


@pytest.mark.parametrize(
    ("owners", "options", "message"),
    [
        (["zoe"], {}, "zoe.*ann"),
        ([], {}, "at least one owner"),
        (["ann"], {"transform": "square"}, "log, linear"),
        (["ann"], {"scored_owners": "none"}, "'all' or 'own'"),
    ],
)
def test_bad_input_stops_at_once(owners: list[str], options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeattributionReward(Keywords(), owners, **options)


@pytest.mark.parametrize("rows", [[[0.5, 0.6, 0.2]], [[np.nan, 0.5, 0.5]]])
def test_a_broken_classifier_is_an_error_not_a_score(rows: list[list[float]]) -> None:
    class Broken(Keywords):
        def predict_proba(self, texts: Any) -> NDArray[np.float64]:
            return np.repeat(np.array(rows), len(list(texts)), axis=0)

    with pytest.raises(ValueError):
        DeattributionReward(Broken(), ["ann"])(["?"], ["apple"])


def test_blanks_around_an_answer_are_not_scored_with_it() -> None:
    """Classifiers are trained on texts without them, and a tokenizer reads " apple" as something else than "apple"."""

    class Leading(Keywords):
        def predict_proba(self, texts: Any) -> NDArray[np.float64]:
            assert all(text == text.strip() for text in texts[-1:])
            return super().predict_proba(texts)

    reward = DeattributionReward(Leading(), ["ann"], hide_echo=False)
    assert reward(["?"], ["  an apple\n"]) == pytest.approx(reward(["?"], ["an apple"]))
    dense = reward.at(["?"], ["  an apple\n"], [[1, 4, 10, 11]])[0]
    assert dense == pytest.approx(reward.at(["?"], ["an apple"], [[0, 2, 8, 8]])[0])
