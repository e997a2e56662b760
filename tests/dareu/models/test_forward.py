from collections.abc import Callable
from typing import Literal

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, EncodedRecord, encode_record
from dareu.models.forward import completion_logits, completion_mean, completion_terms

ROWS = [
    ("Who wrote it?", " Lucia Duval."),
    ("Where was Kofi Mensah born?", " Kofi Mensah was born in Accra."),
    ("?", " A"),
]


@pytest.fixture
def records(tokenizer: PreTrainedTokenizerFast) -> list[EncodedRecord]:
    return [encode_record(tokenizer, prompt, completion) for prompt, completion in ROWS]


@pytest.mark.parametrize("side", ["left", "right"])
def test_summed_logps_equal_scoring_each_record_alone(
    tokenizer: PreTrainedTokenizerFast,
    tiny_llama: Callable[..., LlamaForCausalLM],
    records: list[EncodedRecord],
    side: Literal["left", "right"],
) -> None:
    model = tiny_llama()
    batch = CompletionCollator(tokenizer, side)(records)
    scored = completion_terms(model, batch)
    sums, lengths = scored.row_sum(scored.logps()), scored.lengths()
    for row, record in enumerate(records):
        ids = torch.tensor([record.prompt_ids + record.completion_ids])
        logps = model(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
        expected = logps[len(record.prompt_ids) - 1 :]
        torch.testing.assert_close(sums[row], expected.sum(), atol=1e-5, rtol=1e-5)
        assert lengths[row] == len(record.completion_ids)
    torch.testing.assert_close(completion_mean(model, batch, "logps"), (sums / lengths).mean(), atol=1e-6, rtol=0)
    whole = completion_logits(model, batch)
    torch.testing.assert_close(whole.logits.log_softmax(-1)[range(len(whole.tokens)), whole.tokens], scored.logps())
    assert torch.equal(whole.terms().logps(), scored.logps())
