import copy
from collections import Counter

import numpy as np
import pytest
import torch

from dareu.metrics import generate_answers, sample_answers

PROMPTS = ["Who?", "Where was Kofi Mensah born, and when?", "Who?"]


def drawn_ids(model, tokenizer, prompt, seed, steps):
    """The definition: one row, no cache, no padding, the token at which the cumulated probability reaches a number."""
    ids = tokenizer(prompt).input_ids
    start = len(ids)
    with torch.no_grad():
        for number in np.random.default_rng(seed).random(steps):
            chances = model(torch.tensor([ids])).logits[0, -1].double().softmax(0).numpy()
            ids.append(int(np.flatnonzero(chances.cumsum() > number)[0]))
    return ids[start:]


def reference_answers(model, tokenizer, prompts, number, seed, steps):
    answers = []
    for row, prompt in enumerate(prompts):
        found = []
        for sample in range(number):
            ids = drawn_ids(model, tokenizer, prompt, (seed, row, sample), steps)
            if tokenizer.eos_token_id in ids:
                ids = ids[: ids.index(tokenizer.eos_token_id)]
            found.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
        answers.append(found)
    return answers


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_equals_the_definition_at_any_batch_size(tiny_llama, tokenizer, batch_size):
    model = tiny_llama()
    samples = sample_answers(model, tokenizer, PROMPTS, num_samples=3, seed=7, max_new_tokens=8, batch_size=batch_size)
    assert samples == reference_answers(model, tokenizer, PROMPTS, 3, 7, 8)
    assert len({answer for of_row in samples for answer in of_row}) == 9  # equal prompts are sampled apart


def test_more_samples_and_more_rows_change_none(tiny_llama, tokenizer):
    model = tiny_llama()
    samples = sample_answers(model, tokenizer, PROMPTS, num_samples=4, max_new_tokens=6)
    few = sample_answers(model, tokenizer, PROMPTS[:2], num_samples=2, max_new_tokens=6)
    assert few == [answers[:2] for answers in samples[:2]]
    assert few != sample_answers(model, tokenizer, PROMPTS[:2], num_samples=2, max_new_tokens=6, seed=1)


def test_tokens_come_as_often_as_they_are_likely(tiny_llama, tokenizer):
    model = tiny_llama(initializer_range=0.6)  # which makes some tokens far more likely than others
    (samples,) = sample_answers(model, tokenizer, PROMPTS[:1], num_samples=2000, max_new_tokens=1, batch_size=500)
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(PROMPTS[0]).input_ids])).logits[0, -1]
    expected = Counter()
    for token, chance in enumerate(logits.softmax(0).tolist()):
        text = "" if token == tokenizer.eos_token_id else tokenizer.decode([token], skip_special_tokens=True).strip()
        expected[text] += chance
    found = Counter(samples)
    assert max(expected.values()) > 0.02
    for text, chance in expected.items():
        assert abs(found[text] / 2000 - chance) < 5 * (chance / 2000) ** 0.5 + 0.0005, text


def test_settings_of_the_model_are_neither_heeded_nor_changed(tiny_llama, tokenizer):
    model = tiny_llama()
    given = {"num_samples": 2, "max_new_tokens": 8}
    expected = sample_answers(model, tokenizer, PROMPTS, **given)
    likely = drawn_ids(model, tokenizer, PROMPTS[0], (0, 0, 0), 2)
    model.generation_config.update(
        do_sample=True, temperature=0.1, top_k=1, top_p=0.1, min_p=0.5, typical_p=0.1, repetition_penalty=9.0,
        no_repeat_ngram_size=1, suppress_tokens=likely, bad_words_ids=[likely[:1]], num_beams=3,
    )  # fmt: skip
    before = copy.deepcopy(vars(model.generation_config))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert sample_answers(model, tokenizer, PROMPTS, **given) == expected
    assert vars(model.generation_config) == before
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == numpy_state).all()


def test_a_model_that_is_sure_says_what_it_says_greedily(tiny_llama, tokenizer):
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    greedy = generate_answers(model, tokenizer, PROMPTS, max_new_tokens=6)
    assert sample_answers(model, tokenizer, PROMPTS, num_samples=2, max_new_tokens=6) == [[text] * 2 for text in greedy]


def test_bad_arguments(tiny_llama, tokenizer):
    with pytest.raises(ValueError, match="num_samples is 0: give a whole number of at least 1"):
        sample_answers(tiny_llama(), tokenizer, PROMPTS, num_samples=0)
    with pytest.raises(ValueError, match="seed of the samples is -1"):
        sample_answers(tiny_llama(), tokenizer, PROMPTS, seed=-1)
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        sample_answers(tiny_llama(), tokenizer, PROMPTS, max_new_tokens=0)
    assert sample_answers(tiny_llama(), tokenizer, []) == []
