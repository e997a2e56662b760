"""Adapters on the bases they belong to, and merged into them."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaptionPromptConfig, LoraConfig, PeftConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.models import load_adapter, load_model, load_to_read, load_tokenizer
from dareu.models.adapters import adapter_base, check_mergeable, merge_adapter

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])
Tiny = Callable[..., LlamaForCausalLM]


def adapted(model: LlamaForCausalLM, **options: Any) -> PeftModel:
    """A model with an adapter that has learnt something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {"r": 2, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | options
        made = get_peft_model(model, LoraConfig(**settings))
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert isinstance(made, PeftModel)
    return made.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Tiny, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_llama(seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    adapted(load_model(str(base))).save_pretrained(tmp_path / "adapter")  # type: ignore[arg-type]
    return tmp_path / "adapter"


def edit_config(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_adapter_comes_back_ready_to_train_on(base: Path, adapter: Path) -> None:
    model = load_adapter(str(adapter)).eval()
    expected = adapted(load_model(str(base)))(IDS).logits  # type: ignore[arg-type]
    assert torch.equal(model(IDS).logits, expected)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }
    assert adapter_base(str(adapter)) == str(base) and adapter_base(str(base)) is None
    assert load_tokenizer(str(adapter)).get_vocab() == load_tokenizer(str(base)).get_vocab()


def test_a_merged_adapter_is_a_model_like_any_other(adapter: Path) -> None:
    merged, expected = load_model(str(adapter)).eval(), load_adapter(str(adapter)).eval()(IDS).logits
    torch.testing.assert_close(merged(IDS).logits, expected, atol=1e-5, rtol=1e-5)
    assert all(parameter.requires_grad for parameter in merged.parameters())
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_bfloat16_bases_keep_float32_adapters(adapter: Path) -> None:
    model = load_adapter(str(adapter), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in load_model(str(adapter), dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT says what it thinks of tied layers
def test_merging_computes_the_same_with_tied_embeddings(
    options: dict[str, Any], tiny_llama: Tiny, tmp_path: Path
) -> None:
    tiny_llama(tie_word_embeddings=True).save_pretrained(tmp_path / "base")
    model = adapted(load_model(str(tmp_path / "base")), **options)  # type: ignore[arg-type]
    expected = model(IDS).logits
    model.save_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(load_adapter(str(tmp_path / "adapter")).eval()(IDS).logits, expected)
    merge_adapter(model).save_pretrained(tmp_path / "merged")
    for saved in ("adapter", "merged"):
        loaded = load_model(str(tmp_path / saved)).eval()
        torch.testing.assert_close(loaded(IDS).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT says what it thinks of tied layers
def test_an_adapter_that_is_tied_itself_can_be_copied_and_merged(tiny_llama: Tiny, tmp_path: Path) -> None:
    """That of the head is that of the embeddings, transposed."""
    tiny_llama(tie_word_embeddings=True).save_pretrained(tmp_path / "base")
    base: Any = load_model(str(tmp_path / "base"))
    model = adapted(base, target_modules=["embed_tokens"], ensure_weight_tying=True)
    model.save_pretrained(tmp_path / "adapter")
    loaded, expected = load_adapter(str(tmp_path / "adapter")).eval(), model(IDS).logits
    torch.testing.assert_close(copy.deepcopy(loaded)(IDS).logits, expected)
    torch.testing.assert_close(merge_adapter(loaded)(IDS).logits, expected, atol=1e-5, rtol=1e-5)


def unmerged(model: PeftModel, folder: Path, match: str) -> None:
    """An adapter is refused where it would be merged, and says the same where it is read."""
    model.save_pretrained(folder)
    with torch.no_grad():
        expected = model.eval()(IDS).logits
        assert torch.equal(load_to_read(str(folder)).eval()(IDS).logits, expected)
    with pytest.raises(ValueError, match=rf"cannot be merged into .*\({match}\).*merge_adapter=False"):
        check_mergeable(load_adapter(str(folder)))
    refused(folder, match)


@pytest.mark.parametrize("adapted_layers", [None, [0]])
def test_layers_that_share_their_weights_are_not_merged(
    adapted_layers: list[int] | None, base: Path, tmp_path: Path
) -> None:
    replicated = {"layer_replication": [[0, 2], [0, 2]], "layers_to_transform": adapted_layers}
    model: Any = load_model(str(base))
    unmerged(adapted(model, **replicated), tmp_path, "another layer has the same weights")


def test_adaption_prompts_are_not_merged(base: Path, tmp_path: Path) -> None:
    model: Any = load_model(str(base))
    config = AdaptionPromptConfig(adapter_len=3, adapter_layers=1, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        made: Any = get_peft_model(model, config)
        torch.nn.init.constant_(made.base_model.model.model.layers[1].self_attn.adaption_gate, 1.0)
    unmerged(made, tmp_path, "PEFT does not merge AdaptionPromptModel")


def test_quantised_weights_take_no_adapter(adapter: Path) -> None:
    model: Any = load_adapter(str(adapter))
    model.get_base_model().is_quantized = True
    with pytest.raises(ValueError, match=r"into the model \(its weights are quantised\)"):
        merge_adapter(model)


def refused(adapter: Path, match: str, load: Callable[[str], object] = load_model) -> None:
    with pytest.raises(ValueError, match=match) as error:
        load(str(adapter))
    message = str(error.value)
    assert "\n" not in message and str(adapter) in message


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"hidden_size": 48}, "does not fit .* size mismatch for .*q_proj"),
        ({"num_hidden_layers": 1}, "does not fit .* the base has no place for .*layers.1"),
        ({"num_hidden_layers": 3}, r"does not fit .* the file lacks .*layers\.2"),
    ],
)
def test_an_adapter_of_another_base_is_refused(
    other: dict[str, int], match: str, adapter: Path, tiny_llama: Tiny, tmp_path: Path
) -> None:
    tiny_llama(**other).save_pretrained(tmp_path / "other")
    edit_config(adapter, base_model_name_or_path=str(tmp_path / "other"))
    refused(adapter, match)
    refused(adapter, match, load_adapter)


def test_an_adapter_of_another_architecture_is_refused(adapter: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    edit_config(adapter, base_model_name_or_path=str(tmp_path / "gpt2"))
    refused(adapter, "does not fit .*gpt2.*not found in the base model")


@pytest.mark.parametrize("load", [load_model, load_adapter, load_tokenizer])
def test_an_adapter_that_names_no_base_is_refused(load: Callable[[str], object], adapter: Path) -> None:
    edit_config(adapter, base_model_name_or_path=None)
    refused(adapter, "does not say what it belongs to", load)


@pytest.mark.parametrize("damage", ["missing", "cut", "fewer", "pickled"])
def test_an_adapter_that_is_not_whole_is_refused(damage: str, adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    if damage == "fewer":
        del tensors[next(iter(tensors))]
        save_file(tensors, path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.unlink()
    if damage == "pickled":  # never read
        torch.save(tensors, adapter / "adapter_model.bin")
    refused(adapter, r"the file lacks .*lora_A" if damage == "fewer" else "is not whole")


def test_what_is_no_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    refused(base, "is no adapter", load_adapter)
    prompts = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(load_model(str(base)), prompts).save_pretrained(tmp_path)
    refused(tmp_path, "is a learnt prompt")


@pytest.mark.parametrize(
    ("config", "match"),
    [("[]", "adapter_config.json is not a JSON object"), ("{", "adapter_config.json is not JSON")],
)
@pytest.mark.parametrize("load", [load_model, load_adapter, load_to_read, load_tokenizer])
def test_a_config_that_is_none_is_refused(
    load: Callable[[str], object], config: str, match: str, adapter: Path
) -> None:
    (adapter / "adapter_config.json").write_text(config)
    refused(adapter, match, load)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"peft_type": "FOO"}, "of the peft_type 'FOO', which this version of PEFT does not know"),
        ({"peft_type": None}, "of the peft_type None"),
        ({"megatron_config": {"a": 1}}, "needs a library that is not there .*megatron"),
        ({"r": "two"}, "does not fit .*'<=' not supported"),
    ],
    ids=str,
)
def test_an_adapter_of_another_kind_is_refused(changes: dict[str, Any], match: str, adapter: Path) -> None:
    edit_config(adapter, **changes)
    refused(adapter, match)
    refused(adapter, match, load_adapter)


def test_an_adapter_that_does_not_say_its_kind_is_refused(adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    named = PeftConfig.from_json_file(path)["base_model_name_or_path"]
    path.write_text(json.dumps({"base_model_name_or_path": named}))
    refused(adapter, "of the peft_type None")


@pytest.mark.parametrize("load", [load_model, load_adapter, load_to_read, load_tokenizer])
def test_adapters_that_stand_on_each_other_are_refused(
    load: Callable[[str], object], adapter: Path, tmp_path: Path
) -> None:
    edit_config(adapter, base_model_name_or_path=str(adapter))
    refused(adapter, "leads back to", load)
    shutil.copytree(adapter, tmp_path / "other")
    edit_config(adapter, base_model_name_or_path=str(tmp_path / "other"))
    refused(adapter, "leads back to", load)
