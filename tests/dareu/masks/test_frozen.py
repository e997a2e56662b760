import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from dareu.masks import count_moved_outside, random_mask, saved_for
from dareu.weights import CheckpointWeights


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int8])
def test_bits_outside_the_mask_are_counted(dtype: torch.dtype) -> None:
    before = {"w": torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=dtype), "b": torch.tensor(1, dtype=dtype)}
    after = {"w": torch.tensor([[1, 9, 9], [4, 9, 6]], dtype=dtype), "b": torch.tensor(2, dtype=dtype)}
    mask = {"w": torch.tensor([[True, True, False], [False, False, True]]), "b": torch.tensor(False)}
    assert count_moved_outside(before, after, mask) == 3
    assert count_moved_outside(before, before, mask) == 0
    assert count_moved_outside(before, after, {name: torch.ones_like(m) for name, m in mask.items()}) == 0


def test_bits_are_compared_not_values() -> None:
    mask = {"w": torch.zeros(3, dtype=torch.bool)}
    before = {"w": torch.tensor([0.0, 0.0, math.nan])}
    assert count_moved_outside(before, {"w": torch.tensor([-0.0, -0.0, math.nan])}, mask) == 2


def test_weights_that_cannot_be_compared_are_refused() -> None:
    mask = {"w": torch.zeros(2, dtype=torch.bool)}
    weights = {"w": torch.ones(2), "extra": torch.ones(3)}
    assert count_moved_outside(weights, {"w": torch.ones(2)}, mask) == 0
    with pytest.raises(ValueError, match="after training lack parameter 'w'"):
        count_moved_outside(weights, {}, mask)
    with pytest.raises(ValueError, match="compare the same model and dtype"):
        count_moved_outside(weights, {"w": torch.ones(2).bfloat16()}, mask)
    with pytest.raises(ValueError, match="compare the same model and dtype"):
        count_moved_outside(weights, {"w": torch.ones(1, 2)}, mask)


@pytest.mark.parametrize("shard", ["1GB", "10KB"])
def test_saved_models_are_compared_tied_and_sharded(
    tmp_path: Path, tiny_llama: Callable[..., nn.Module], shard: str
) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "10KB")
    mask = random_mask(model, 0.5, seed=0)
    changed = copy.deepcopy(model)
    for name, parameter in changed.named_parameters():
        parameter.data[mask[name]] += 1
    saved = CheckpointWeights(tmp_path)
    assert count_moved_outside(saved, changed, mask) == 0
    frozen = (~mask["model.embed_tokens.weight"]).nonzero()[:3]
    for row, column in frozen.tolist():
        changed.model.embed_tokens.weight.data[row, column] += 1
    assert count_moved_outside(saved, changed, mask) == 3
    assert set(saved) == set(mask)
    assert len(saved) == len(mask)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no safetensors file"):
        CheckpointWeights(tmp_path)


@pytest.mark.parametrize("kind", ["gpt_neox", "mixtral"])
def test_a_model_whose_files_have_other_names_is_compared(kind: str, tmp_path: Path) -> None:
    """GPT-NeoX's head is called otherwise when it is saved, and Mixtral's experts are one tensor in memory alone."""
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    experts = {"num_local_experts": 2} if kind == "mixtral" else {}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **heads, **experts))
    model.save_pretrained(tmp_path)
    mask = random_mask(model, 0.5, seed=0)
    assert not mask.keys() <= CheckpointWeights(tmp_path).keys()
    assert count_moved_outside(model, saved_for(mask, tmp_path, torch.float32), mask) == 0
    name = "lm_head.weight" if kind == "gpt_neox" else "model.layers.0.mlp.experts.gate_up_proj"
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[~mask[name].view(-1)] += 1
    moved = int((~mask[name]).sum())
    assert count_moved_outside(model, saved_for(mask, tmp_path, torch.float32), mask) == moved
