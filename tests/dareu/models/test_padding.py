"""A model that reads its padding is refused before it is trained or measured."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaForCausalLM

from dareu.models.padding import check_padding

SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}


def build(name: str, **config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**SHAPE | config))


def test_a_model_that_reads_its_padding_is_refused() -> None:
    model = build("Rwkv", attention_hidden_size=32, context_length=64)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"The model \(rwkv\) reads the padding"):
        check_padding(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_others_pass_and_are_left_as_they_are(dtype: torch.dtype, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    for model in (tiny_llama().to(dtype).train(), build("Mamba", state_size=4).to(dtype), build("Llama", vocab_size=5)):
        mode = model.training
        check_padding(model)
        assert model.training == mode and all(parameter.grad is None for parameter in model.parameters())
