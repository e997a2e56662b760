"""A GGUF file, written here as llama.cpp writes one, as a folder that trains."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Stored
from gguf import GGUFReader, GGUFWriter
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

import dareu.cli
import dareu.tools.convert
from dareu.models import load_model, load_tokenizer
from dareu.models.gguf_file import convert_gguf

Tiny = Callable[..., LlamaForCausalLM]

#: Our names of a layer's weights to those of GGUF.
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"


def gguf_name(name: str) -> str:
    name = re.sub(r"^model\.layers\.", "blk.", name)
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def stored_rows(name: str, weight: np.ndarray[Any, Any], model: LlamaForCausalLM) -> np.ndarray[Any, Any]:
    """The rows of queries and keys in llama.cpp's order: both halves of a head's rotation side by side."""
    if not re.search(r"[qk]_proj", name):
        return weight
    config = model.config
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def write(
    path: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    architecture: str = "llama",
    leave_out: str = "",
    tensors: dict[str, np.ndarray[Any, Any]] | None = None,
    missing_byte: str = "",
    end_of_turn: int | None = None,
) -> Path:
    """A GGUF file of a Llama; weights of feed-forward layers are stored as Q8_0."""
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    tokens = ["unused" if token == missing_byte else token for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    pairs = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in pairs])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    if end_of_turn is not None:
        writer.add_eot_token_id(end_of_turn)
    places = model.state_dict()
    if config.tie_word_embeddings:
        del places["lm_head.weight"]
    for name, weight in places.items():
        values = stored_rows(name, weight.numpy(), model)
        if leave_out and leave_out in name:
            continue
        if "mlp" in name:
            writer.add_tensor(gguf_name(name), gguf.quantize(values, Stored.Q8_0), raw_dtype=Stored.Q8_0)
        else:
            writer.add_tensor(gguf_name(name), values)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model(tiny_llama: Tiny) -> LlamaForCausalLM:
    """Four heads over two of keys, so that the two are put in order differently."""
    made = tiny_llama(seed=5, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" in name:  # all ones as they are made
                parameter.add_(torch.linspace(-0.5, 0.5, parameter.numel()))
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, tokenizer)


def test_every_weight_arrives_in_its_place_and_trains(
    file: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    made = convert_gguf(file, tmp_path / "new")
    assert made == ("LlamaForCausalLM", sum(p.numel() for p in model.parameters()), ("F32", "Q8_0"))
    loaded = load_model(str(tmp_path / "new"))
    weights, expected = loaded.state_dict(), model.state_dict()
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        if "mlp" in name:  # as quantized
            values = gguf.dequantize(gguf.quantize(weight.numpy(), Stored.Q8_0), Stored.Q8_0)
            weight = torch.from_numpy(values.copy())
        assert torch.equal(weights[name], weight), name
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert loaded.config.to_dict().keys().isdisjoint({"quantization_config", "_model_name_or_path"})

    ids = torch.tensor([[1, 20, 30, 40, 50, 60]])
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded.train()(ids, labels=ids).loss.backward()
    optimizer.step()
    assert all(not torch.equal(loaded.state_dict()[name], weight) for name, weight in expected.items())
    loaded.save_pretrained(tmp_path / "trained")
    again = load_model(str(tmp_path / "trained")).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in loaded.state_dict().items())


def test_the_tokenizer_and_its_template_come_along(
    file: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    convert_gguf(file, tmp_path / "new")
    made, text = load_tokenizer(str(tmp_path / "new")), "Kofi Mensah was born in Accra in 1961."
    assert made(text)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert (made.bos_token, made.eos_token, made.pad_token) == ("<s>", "</s>", "<pad>")
    chat = made.apply_chat_template([{"role": "user", "content": "Accra"}], tokenize=False)
    assert chat == "<s>Accra</s>"
    assert made(chat)["input_ids"][0] == 1 and made(chat)["input_ids"][-1] == 2
    assert len(made) == len(tokenizer)  # no `<|endoftext|>`, which transformers adds and the model has no row for


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_layer_is_tied_where_the_file_has_none(
    tiny_llama: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, tied: bool
) -> None:
    model = tiny_llama(seed=1, tie_word_embeddings=tied)
    convert_gguf(write(tmp_path / "x.gguf", model, tokenizer), tmp_path / "new")
    loaded = load_model(str(tmp_path / "new"))
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


def test_generation_ends_with_a_text_and_with_a_turn(
    file: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    convert_gguf(file, tmp_path / "new")
    assert load_model(str(tmp_path / "new")).generation_config.eos_token_id == 2
    convert_gguf(write(tmp_path / "x.gguf", model, tokenizer, end_of_turn=0), tmp_path / "turns")
    assert load_model(str(tmp_path / "turns")).generation_config.eos_token_id == [2, 0]


def test_the_command_says_what_it_made(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["convert", str(file), "new", "--dtype", "bfloat16"])
    dareu.tools.convert.main()
    assert re.search(
        r"The model is in new: LlamaForCausalLM, [\d,]+ parameters in bfloat16, from F32, Q8_0\.",
        capsys.readouterr().out,
    )
    exact, rounded = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
        for folder in (convert_gguf(file, "exact") and "exact", "new")
    )
    assert all(torch.equal(rounded[name], weight.bfloat16()) for name, weight in exact.items())


def test_a_refusal_is_one_sentence(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    assert dareu.cli.main(["convert", str(file), str(tmp_path / "there")]) == 1
    assert (
        capfd.readouterr().err == f"convert: '{tmp_path / 'there'}' is there already; give the name of a new folder.\n"
    )
    assert not list((tmp_path / "there").iterdir())


def refusal(file: Path, tmp_path: Path) -> str:
    """What is said of a file, of which nothing is made."""
    with pytest.raises(ValueError) as refused:
        convert_gguf(file, tmp_path / "new")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".tmp-*"))
    return str(refused.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path / "none.gguf", tmp_path)
    other = tmp_path / "other.gguf"
    for content in (b"", b"GG", b"PK\x03\x04" + bytes(100)):
        other.write_bytes(content)
        assert "other.gguf is no GGUF file" in refusal(other, tmp_path)


def test_a_file_that_was_cut_short_is_refused_wherever(file: Path, tmp_path: Path) -> None:
    content, cut = file.read_bytes(), tmp_path / "cut.gguf"
    last = max(GGUFReader(file).tensors, key=lambda tensor: tensor.data_offset)
    end, begin = last.data_offset + last.n_bytes, GGUFReader(file).data_offset
    for size in (4, 20, 24, 100, begin // 2, begin - 40, begin, begin + 1, end // 2, end - 1):
        cut.write_bytes(content[:size])
        assert f"cut.gguf is cut short or damaged, for its {size:,} bytes do not hold" in refusal(cut, tmp_path), size


@pytest.mark.parametrize("architecture", ["clip", "bert", "t5"])
def test_an_architecture_that_does_not_train_is_refused(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, architecture: str
) -> None:
    said = refusal(write(tmp_path / "x.gguf", model, tokenizer, architecture=architecture), tmp_path)
    assert f"states the architecture '{architecture}', and no causal language model to train: give one of" in said
    assert {"llama", "gemma3", "qwen3"} <= set(re.split(r"[ ,.]+", said)) and "tokenizer" not in said


def test_a_file_that_lacks_a_tensor_is_refused(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    said = refusal(write(tmp_path / "x.gguf", model, tokenizer, leave_out="1.mlp.up_proj"), tmp_path)
    assert "lacks 1 of the model's tensors (model.layers.1.mlp.up_proj.weight" in said


def test_a_tensor_that_would_be_dropped_is_named(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """transformers passes over what it has no place for, such as the factors of Llama 3's rotation."""
    factors = {"rope_freqs.weight": np.ones(4, dtype=np.float32)}
    said = refusal(write(tmp_path / "x.gguf", model, tokenizer, tensors=factors), tmp_path)
    assert "not rope_freqs.weight: the model would not be the file's" in said


def test_weights_that_make_no_model_are_refused(
    tiny_llama: Tiny, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny_llama(seed=0)
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    assert "logits are not finite" in refusal(write(tmp_path / "x.gguf", model, tokenizer), tmp_path)


def test_a_tokenizer_that_loses_text_is_refused(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Without the byte that opens dashes and quotes."""
    said = refusal(write(tmp_path / "x.gguf", model, tokenizer, missing_byte="â"), tmp_path)
    assert "x.gguf does not survive as transformers reads it" in said


def test_without_gguf_the_extra_is_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'dareu[gguf]'" in refusal(file, tmp_path)
