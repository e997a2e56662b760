"""Models from folders, adapters and scratch, and the base model that ships with the package."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data.fictional import fictional_world
from dareu.metrics import generate_answers
from dareu.models import (
    BASE_MODEL,
    layer_list,
    load_base_tokenizer,
    load_model,
    load_tokenizer,
    new_llama,
    new_tokenizer,
    resolve_model_path,
)

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])
TEXTS = ["Lucia Duval was born in Porto.", "Łukasz wrote “Zażółć” – in 1987.", "雪と\tsnow\n\n"]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence(error: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_a_saved_model_comes_back(folder: Path, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    loaded = load_model(str(folder))
    for name, parameter in tiny_llama(seed=3).named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter)


def test_weights_are_float32_unless_asked_otherwise(
    tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    tiny_llama().to(torch.bfloat16).save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_model(str(tmp_path)).parameters()} == {torch.float32}
    asked = load_model(str(tmp_path), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in asked.parameters()} == {torch.bfloat16}


def test_an_adapter_folder_is_merged_into_its_base(folder: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = get_peft_model(load_model(str(folder)), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path)
    load_tokenizer(str(folder)).save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path)).eval()
    assert not isinstance(loaded, PeftModel) and not any("lora" in name for name, _ in loaded.named_parameters())
    with torch.no_grad():
        merged, base = loaded(IDS).logits, load_model(str(folder)).eval()(IDS).logits
        torch.testing.assert_close(merged, adapted.eval()(IDS).logits, atol=1e-5, rtol=1e-5)
    assert (merged - base).abs().max() > 1e-2
    assert load_tokenizer(str(tmp_path)).get_vocab() == load_tokenizer(str(folder)).get_vocab()


def test_an_adapter_without_its_base_says_so(folder: Path, tmp_path: Path) -> None:
    adapted = get_peft_model(load_model(str(folder)), LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"No causal language model could be loaded.*gone") as error:
        load_model(str(tmp_path))
    sentence(error)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_missing_folder_is_one_sentence(load: Callable[[str], object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="could be loaded from") as error:
        load(str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in sentence(error)


def edit(folder: Path, copied: Path, **changes: Any) -> None:
    shutil.copytree(folder, copied)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "could be loaded from"),
        ({"quantization_config": {"quant_method": "hqq"}}, "could be loaded from"),
        ({"hidden_size": "wide"}, "Validation error for field 'hidden_size': TypeError"),
        ({"hidden_act": "none of them"}, "unknown or missing: 'none of them'"),
        ({"hidden_size": 48}, r"lm_head.weight is of the shape \[400, 32\] in its files, but \[400, 48\]"),
        ({"num_hidden_layers": 3}, r"its files lack model\.layers\.2\."),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_loaded_whole_is_one_sentence(
    changes: dict[str, Any], match: str, folder: Path, tmp_path: Path
) -> None:
    edit(folder, tmp_path / "model", **changes)
    with pytest.raises(ValueError, match=match) as error:
        load_model(str(tmp_path / "model"))
    assert str(tmp_path / "model") in sentence(error)


def test_a_cut_file_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    edit(folder, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(ValueError, match="No causal language model could be loaded from") as error:
        load_model(str(tmp_path / "model"))
    sentence(error)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_an_empty_folder_is_one_sentence(load: Callable[[str], object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="could be loaded from") as error:
        load(str(tmp_path))
    assert str(tmp_path) in sentence(error)


def test_a_tokenizer_without_a_pad_token_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    without = copy.deepcopy(tokenizer)
    without.pad_token = None
    without.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="pad") as error:
        load_tokenizer(str(tmp_path))
    sentence(error)


def test_the_pad_token_of_a_tokenizer_without_one_is_named(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    without = copy.deepcopy(tokenizer)
    without.pad_token = None
    without.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path), pad_token="</s>").pad_token_id == tokenizer.eos_token_id
    with pytest.raises(ValueError, match="'<none>' is no token of"):
        load_tokenizer(str(tmp_path), pad_token="<none>")
    tokenizer.save_pretrained(tmp_path / "with")
    assert load_tokenizer(str(tmp_path / "with"), pad_token="</s>").pad_token == "<pad>"  # what is there stays


def test_a_new_tokenizer_opens_every_text_and_gives_it_back() -> None:
    tokenizer = new_tokenizer(TEXTS, vocab_size=300)
    assert len(tokenizer) <= 300
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == ("<pad>", "<s>", "</s>")
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    for text in [*TEXTS, "Words that it has never seen: ☃."]:
        ids = tokenizer(text)["input_ids"]
        assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_a_new_tokenizer_is_the_same_each_time_and_survives_saving(tmp_path: Path) -> None:
    first, again = (new_tokenizer(TEXTS, vocab_size=300) for _ in range(2))
    assert first.get_vocab() == again.get_vocab()
    first.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path))(TEXTS)["input_ids"] == first(TEXTS)["input_ids"]


def test_a_new_llama_follows_its_seed_and_leaves_the_global_random_state_alone() -> None:
    tokenizer = new_tokenizer(TEXTS, vocab_size=300)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    state = torch.get_rng_state()
    first, again, other = (new_llama(tokenizer, seed=seed, **shape) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)
    assert first.lm_head.weight is first.model.embed_tokens.weight
    assert first.config.vocab_size == len(tokenizer) and first.config.pad_token_id == tokenizer.pad_token_id


def test_only_the_base_models_name_is_resolved() -> None:
    assert resolve_model_path("org/some-model") == "org/some-model"
    assert Path(resolve_model_path(BASE_MODEL)).is_dir()


def test_the_shipped_base_model_is_small_and_holds_no_pickle() -> None:
    files = {path.name: path for path in Path(resolve_model_path(BASE_MODEL)).iterdir() if path.is_file()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= files.keys()
    assert {path.suffix for path in files.values()} <= {".safetensors", ".json", ".md"}
    assert sum(path.stat().st_size for path in files.values()) <= 6_000_000
    with safe_open(files["model.safetensors"], "pt") as weights:
        count = sum(weights.get_tensor(name).numel() for name in weights.keys())
    assert 1_000_000 <= count <= 3_000_000


def test_the_shipped_base_model_copies_the_name_it_is_asked_about() -> None:
    test = fictional_world(16, num_background=1).test
    model, tokenizer = load_model(BASE_MODEL).eval(), load_tokenizer(BASE_MODEL)
    answers = generate_answers(model, tokenizer, list(test["prompt"]), max_new_tokens=48, batch_size=96)
    kept = [name in answer for name, answer in zip(test["name"], answers, strict=True)]
    assert sum(kept) / len(kept) >= 0.95


def test_the_layers_are_the_largest_list(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama(num_hidden_layers=3)
    model.model.short = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    parent, name = layer_list(model)
    assert parent is model.model and name == "layers"
    with pytest.raises(ValueError, match="Linear has no list of layers"):
        layer_list(torch.nn.Linear(2, 2))


def test_a_base_model_without_a_chat_template_renders_messages_as_the_target_does(
    folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    target = copy.deepcopy(tokenizer)
    assert load_base_tokenizer(str(folder), target).chat_template is None
    target.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    assert load_base_tokenizer(str(folder), target).chat_template == target.chat_template
    own = copy.deepcopy(tokenizer)
    own.chat_template = "{{ messages[0].content }}"
    own.save_pretrained(tmp_path)
    assert load_base_tokenizer(str(tmp_path), target).chat_template == own.chat_template
