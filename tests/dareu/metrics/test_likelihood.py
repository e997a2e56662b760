import copy

import numpy as np
import pytest
import torch

from dareu.data.encoding import CompletionCollator, encode_record
from dareu.metrics import AnswerNLL, answer_nll, probability

PROMPTS = ["Who?", "Where was Kofi Mensah born?", "Which prize did the author win in the end?", "Who?", "It"]
COMPLETIONS = [" Lucia Duval, who wrote the novel.", " In Accra.", " The first one.", "", " is the sea" * 6]


def nll_of_one_row(model, tokenizer, prompt, completion):
    """The definition, without batch, padding or window."""
    prompt_ids, completion_ids = (
        encode_record(tokenizer, prompt, completion)
        if completion
        else (tokenizer(prompt).input_ids, [tokenizer.eos_token_id])
    )
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + completion_ids])).logits[0]
    logps = logits.log_softmax(-1)
    return [-logps[len(prompt_ids) + i - 1, token].item() for i, token in enumerate(completion_ids)]


def test_equals_the_definition(tiny_llama, tokenizer):
    model = tiny_llama()
    result = answer_nll(model, tokenizer, PROMPTS, COMPLETIONS)
    rows = [nll_of_one_row(model, tokenizer, p, c) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    np.testing.assert_allclose(result.total, [sum(row) for row in rows], atol=1e-5)
    assert result.num_tokens.tolist() == [len(row) for row in rows]
    assert result.num_tokens[3] == 1  # an empty answer is its end token
    np.testing.assert_allclose(result.mean, [np.mean(row) for row in rows], atol=1e-5)
    assert result.total.dtype == np.float64


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_same_at_any_batch_size(tiny_llama, tokenizer, batch_size):
    model = tiny_llama()
    whole = answer_nll(model, tokenizer, PROMPTS, COMPLETIONS)
    parts = answer_nll(model, tokenizer, PROMPTS, COMPLETIONS, batch_size=batch_size)
    np.testing.assert_allclose(parts.total, whole.total, atol=1e-5)


def test_same_at_either_padding_side(tiny_llama, tokenizer):
    model = tiny_llama()
    expected = answer_nll(model, tokenizer, PROMPTS[:3], COMPLETIONS[:3]).total
    for side in ("left", "right"):
        sided = copy.deepcopy(tokenizer)
        sided.padding_side = side
        np.testing.assert_array_equal(answer_nll(model, sided, PROMPTS[:3], COMPLETIONS[:3]).total, expected)
        assert sided.padding_side == side
    # The likelihood itself does not hang on the side either: the same rows, padded on the left by hand.
    records = [encode_record(tokenizer, p, c) for p, c in zip(PROMPTS[:3], COMPLETIONS[:3], strict=True)]
    batch = CompletionCollator(tokenizer, padding_side="left")(records)
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=positions).logits
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], reduction="none")
    np.testing.assert_allclose(losses.sum(1).numpy(), expected, atol=1e-5)


def test_end_token_counts_where_it_also_pads(tiny_llama, tokenizer):
    model = tiny_llama()
    shared = copy.deepcopy(tokenizer)
    shared.pad_token = shared.eos_token
    expected = answer_nll(model, tokenizer, PROMPTS, COMPLETIONS)
    result = answer_nll(model, shared, PROMPTS, COMPLETIONS)
    np.testing.assert_array_equal(result.num_tokens, expected.num_tokens)
    np.testing.assert_allclose(result.total, expected.total, atol=1e-5)


def test_bfloat16_logits_are_normalised_in_float32(tiny_llama, tokenizer):
    model = tiny_llama().to(torch.bfloat16)
    result = answer_nll(model, tokenizer, PROMPTS[:1], COMPLETIONS[:1])
    record = encode_record(tokenizer, PROMPTS[0], COMPLETIONS[0])
    with torch.no_grad():
        logits = model(torch.tensor([record.prompt_ids + record.completion_ids])).logits[0].float()
    start = len(record.prompt_ids) - 1
    expected = torch.nn.functional.cross_entropy(logits[start:-1], torch.tensor(record.completion_ids), reduction="sum")
    np.testing.assert_allclose(result.total, [expected.item()], rtol=1e-3)
    assert result.total[0] != float(torch.tensor(result.total[0]).bfloat16())


def test_modes_are_left_alone_and_dropout_is_off(tiny_llama, tokenizer):
    model = tiny_llama(attention_dropout=0.5)
    expected = answer_nll(model, tokenizer, PROMPTS, COMPLETIONS).total
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    np.testing.assert_array_equal(answer_nll(model, tokenizer, PROMPTS, COMPLETIONS).total, expected)
    assert [module.training for module in model.modules()] == modes


def test_no_rows(tiny_llama, tokenizer):
    result = answer_nll(tiny_llama(), tokenizer, [], [])
    assert result.total.shape == result.num_tokens.shape == result.mean.shape == (0,)


def test_row_beyond_the_context_is_named(tiny_llama, tokenizer):
    model = tiny_llama(max_position_embeddings=16)
    with pytest.raises(ValueError, match=r"Row 1: the prompt has .* context of 16"):
        answer_nll(model, tokenizer, ["Who?", "Who? " * 16], ["It.", "It."])
    with pytest.raises(ValueError, match=r"Row 1: prompt and completion have .* context holds 16"):
        answer_nll(model, tokenizer, ["Who?", "Who?"], ["It.", "It. " * 16])


def test_context_may_be_full_to_the_last_token(tiny_llama, tokenizer):
    prompt, completion = PROMPTS[1], COMPLETIONS[1]
    length = sum(map(len, encode_record(tokenizer, prompt, completion)))
    expected = answer_nll(tiny_llama(), tokenizer, [prompt], [completion])
    # The end token is predicted, never read.
    full = answer_nll(tiny_llama(max_position_embeddings=length - 1), tokenizer, [prompt], [completion])
    np.testing.assert_allclose(full.total, expected.total, atol=1e-5)
    short = tiny_llama(max_position_embeddings=length - 3)
    with pytest.raises(ValueError, match="Row 0"):
        answer_nll(short, tokenizer, [prompt], [completion])
    cut = answer_nll(short, tokenizer, [prompt], [completion], truncate=True)
    assert cut.num_tokens.tolist() == [expected.num_tokens[0] - 2]
    assert cut.total[0] < expected.total[0]


def test_broken_model_is_an_error(tiny_llama, tokenizer):
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match="Row 0: the model gives no finite likelihood"):
        answer_nll(model, tokenizer, PROMPTS, COMPLETIONS)


def test_bad_arguments(tiny_llama, tokenizer):
    with pytest.raises(ValueError, match="5 prompts, 1 completions"):
        answer_nll(tiny_llama(), tokenizer, PROMPTS, ["x"])
    with pytest.raises(ValueError, match="batch_size is 0"):
        answer_nll(tiny_llama(), tokenizer, PROMPTS, COMPLETIONS, batch_size=0)
    unpadded = copy.deepcopy(tokenizer)
    unpadded.pad_token = None
    with pytest.raises(ValueError, match="no padding token"):
        answer_nll(tiny_llama(), unpadded, PROMPTS, COMPLETIONS)


def test_probability_is_the_geometric_mean_over_tokens():
    result = AnswerNLL(total=-np.log([0.5 * 0.125, 1.0]), num_tokens=np.array([2, 1]))
    np.testing.assert_allclose(probability(result.mean), [0.25, 1.0])
