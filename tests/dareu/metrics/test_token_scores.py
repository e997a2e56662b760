"""What is predicted at every token: the plain definition, one row at a time in float64, against the batched pass."""

import numpy as np
import pytest
import torch

from dareu.data.encoding import encode_record
from dareu.metrics import token_scores

PROMPTS = ["Who?", "Where was Kofi Mensah born?", "Which prize did the author win in the end?", "Who?"]
COMPLETIONS = [
    [" Lucia Duval, who wrote the novel.", " Kofi Mensah.", " Sanna Thorne, who writes short stories."],
    [" In Accra.", " In Porto in 1961, near the sea."],
    [],
    [" Lucia Duval."],
]


def of_one_row(model, tokenizer, prompt, completion):
    prompt_ids, completion_ids = encode_record(tokenizer, prompt, completion)
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + completion_ids])).logits[0].double()
    found = []
    for place, token in enumerate(completion_ids, start=len(prompt_ids) - 1):
        logps = logits[place] - torch.logsumexp(logits[place], 0)
        mean = (logps.exp() * logps).sum()
        deviation = (logps.exp() * (logps - mean) ** 2).sum().sqrt()
        found.append([logps[token].item(), float(logps.argmax() == token), mean.item(), deviation.item()])
    return np.array(found).T


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_equal_the_definition(tiny_llama, tokenizer, batch_size):
    model = tiny_llama().double()
    found = token_scores(model, tokenizer, PROMPTS, COMPLETIONS, batch_size=batch_size)
    assert [len(of_row) for of_row in found] == [3, 2, 0, 1]
    for prompt, completions, of_row in zip(PROMPTS, COMPLETIONS, found, strict=True):
        for completion, scores in zip(completions, of_row, strict=True):
            expected = of_one_row(model, tokenizer, prompt, completion)
            np.testing.assert_allclose(np.stack(scores), expected, atol=1e-9, rtol=0)
            assert scores.hits.dtype == bool and scores.logps.dtype == np.float64


def test_hits_are_those_of_a_model_that_knows(memorised, tokenizer, forget_rows):
    prompts, golds = list(forget_rows["prompt"]), list(forget_rows["completion"])
    found = token_scores(memorised(), tokenizer, prompts, [[gold, " Nobody knows."] for gold in golds])
    assert all(right.hits.all() and not wrong.hits.all() for right, wrong in found)


def test_a_token_without_probability_changes_nothing_else(tiny_llama, tokenizer, monkeypatch):
    model = tiny_llama()
    expected = token_scores(model, tokenizer, PROMPTS[1:2], [[" In Accra."]])[0][0]
    unused = len(tokenizer) - 1
    assert unused not in tokenizer(" In Accra.")["input_ids"]
    head = model.get_output_embeddings()
    head.weight.data[unused] = 0
    zero = token_scores(model, tokenizer, PROMPTS[1:2], [[" In Accra."]])[0][0]
    bias = torch.zeros(head.weight.shape[0])
    bias[unused] = -torch.inf
    head.bias = torch.nn.Parameter(bias)
    found = token_scores(model, tokenizer, PROMPTS[1:2], [[" In Accra."]])[0][0]
    assert np.isfinite(np.stack(found[:1] + found[2:])).all()
    assert (found.logps > zero.logps).all() and (found.expected > zero.expected).all()
    assert expected.logps.shape == found.logps.shape
