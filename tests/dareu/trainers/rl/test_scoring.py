from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from dareu.trainers.rl._scoring import Slices, SliceScorer, character_ends


def ignore(index: int, slices: Slices) -> None: ...


class Dense:
    """Scores each prefix by its length."""

    def at(self, prompts: Any, completions: Any, ends: Any, **columns: Any) -> list[list[float] | None]:
        self.ends = ends
        return [[float(end) for end in row] for row in ends]


def test_character_ends_are_prefixes_that_decode_cleanly(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Kofi né à Zürich 🙂 in 1961."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    ends = list(range(1, len(ids) + 1))
    offsets = character_ends(tokenizer, ids, text, ends)
    assert offsets == sorted(offsets) and offsets[-1] == len(text)
    for end, offset in zip(ends, offsets, strict=True):
        decoded = tokenizer.decode(ids[:end], skip_special_tokens=True)
        assert decoded.startswith(text[:offset])
        assert decoded[offset:] in ("", *("�" * n for n in range(1, 5)))


def test_character_ends_count_from_the_answer_where_thoughts_were_cut_off(tokenizer: PreTrainedTokenizerFast) -> None:
    answer = "Kofi Mensah was born in Accra."
    thoughts = f"<think>Who was it? {answer}</think>"
    ids = tokenizer(thoughts + answer, add_special_tokens=False)["input_ids"]
    ends = list(range(1, len(ids) + 1))
    for end, offset in zip(ends, character_ends(tokenizer, ids, answer, ends), strict=True):
        assert offset == max(0, len(tokenizer.decode(ids[:end])) - len(thoughts))


def test_dense_reward_is_asked_once_a_batch_at_token_borders(tokenizer: PreTrainedTokenizerFast) -> None:
    reward = Dense()
    kept: dict[int, Slices] = {}
    scorer = SliceScorer(reward, tokenizer, 3, 1, kept.__setitem__)
    texts = ["The novel was written by Lucia Duval.", "Accra"]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    scores = scorer(["p", "p"], texts, ids)
    assert scores == [float(len(text)) for text in texts]
    assert kept.keys() == {1} and kept[1].scores == [[float(end) for end in row] for row in reward.ends]
    assert [ends[-1] for ends in kept[1].ends] == [len(row) for row in ids]
    assert [len(row) for row in reward.ends] == [len(ends) for ends in kept[1].ends]


def test_chat_completions_are_measured_in_their_content(tokenizer: PreTrainedTokenizerFast) -> None:
    reward = Dense()
    scorer = SliceScorer(reward, tokenizer, 2, 0, ignore)
    ids = tokenizer("born in Accra", add_special_tokens=False)["input_ids"]
    scorer([[{"role": "user", "content": "?"}]], [[{"role": "assistant", "content": "born in Accra"}]], [ids])
    assert reward.ends[0][-1] == len("born in Accra")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda **_: [0.0], "gave 1 scores for 2 completions"),
        (lambda **_: [0.0, float("inf")], "NaN or infinite score for completion 1"),
        (lambda **_: [float("nan"), 0.0], "NaN or infinite score for completion 0"),
    ],
)
def test_wrong_scores_stop_with_a_sentence(tokenizer: PreTrainedTokenizerFast, reward: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SliceScorer(reward, tokenizer, 3, 0, ignore)(["p", "p"], ["a", "b"], [[5], [6]])


def test_none_means_does_not_apply(tokenizer: PreTrainedTokenizerFast) -> None:
    scorer = SliceScorer(lambda **_: [None, -0.5], tokenizer, 3, 0, ignore)
    assert scorer(["p", "p"], ["a", "b"], [[5], [6]]) == [None, -0.5]
