"""LLMClassifier: what it learns, that prefixes come from one pass, and that nothing but the text decides."""

import copy
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from tokenizers import normalizers
from transformers import (
    BertConfig,
    BertModel,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from dareu.classifiers import LLMClassifier, check_classifier, load_classifier, proba_at

STRANGE = ["", " ", "Düval  wrote 🙂 “x” and\n\n sea ", "It is about snow.", "a", "naïve camels 🙂🙂", "</s>"]


def test_learns_wholes_and_prefixes_and_the_none_class(llm, test_rows) -> None:
    assert llm.classes_.tolist() == ["Ada", "Bo", "Cy", "none"]
    assert llm.score(*test_rows) == 1.0
    # The first telling word ends at " and"; before it only the common start is seen.
    ends = [[text.index(" and")] for text in test_rows.texts]
    winners = np.concatenate(llm.predict_proba_at(test_rows.texts, ends)).argmax(axis=1)
    assert (llm.classes_[winners] == test_rows.labels).mean() >= 0.9
    early = np.concatenate(llm.predict_proba_at(test_rows.texts, [[5]] * len(test_rows.texts)))
    assert early.max() < 0.5


def test_keeps_the_contract(llm, test_rows) -> None:
    check_classifier(llm, test_rows.texts[::4] + STRANGE)


def test_batch_size_and_order_do_not_matter(llm, test_rows) -> None:
    texts = test_rows.texts + STRANGE
    expected = llm.predict_proba(texts)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)
    order = random.Random(0).sample(range(len(texts)), len(texts))
    for batch_size in (1, 2, 100):
        other = copy.copy(llm).set_params(batch_size=batch_size)
        np.testing.assert_allclose(other.predict_proba([texts[i] for i in order]), expected[order], atol=1e-6)


def assert_prefixes_equal_cut_texts(classifier: LLMClassifier, texts: list[str]) -> None:
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
    spans = classifier.tokenizer_(texts, **options)["offset_mapping"]
    result = classifier.predict_proba_at(texts, [range(len(text) + 1) for text in texts])
    for text, tokens, rows in zip(texts, spans, result, strict=True):
        borders = [0, *(end for _, end in tokens), len(text)]
        cuts = [text[: max(border for border in borders if border <= end)] for end in range(len(text) + 1)]
        np.testing.assert_allclose(rows, classifier.predict_proba(cuts), atol=1e-5)
        np.testing.assert_allclose(rows[-1], classifier.predict_proba([text])[0], atol=1e-6)


def test_every_prefix_equals_the_text_cut_at_its_border(llm, test_rows) -> None:
    assert_prefixes_equal_cut_texts(llm, [*test_rows.texts[::7], *STRANGE])


def test_prefixes_that_are_split_otherwise_when_alone(llm, test_rows) -> None:
    classifier = copy.copy(llm)
    classifier.tokenizer_ = copy.deepcopy(llm.tokenizer_)
    classifier.tokenizer_.backend_tokenizer.normalizer = normalizers.Strip()  # "snow " alone loses its space
    assert_prefixes_equal_cut_texts(classifier, [*test_rows.texts[::7], *STRANGE])


# peft 0.21 still asks transformers for the old name; drop this when it no longer does.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_real_model_folder_serves(shared_dir: Path, train_rows, test_rows) -> None:
    folder = shared_dir / "models" / "stories260k"
    classifier = LLMClassifier(folder, learning_rate=5e-3, num_epochs=3, device="cpu").fit(*train_rows)
    assert_prefixes_equal_cut_texts(classifier, [*test_rows.texts[::7], *STRANGE])
    assert classifier.score(*test_rows) >= 0.9


def test_prefixes_take_one_forward_pass(llm, test_rows) -> None:
    calls = []
    hook = llm.backbone_.register_forward_hook(lambda *_: calls.append(1))
    try:
        proba_at(llm, test_rows.texts, [list(range(0, len(text), 3)) for text in test_rows.texts])
    finally:
        hook.remove()
    assert len(calls) == 1


def test_text_without_tokens_gets_equal_probabilities(llm) -> None:
    np.testing.assert_array_equal(llm.predict_proba([""]), np.full((1, 4), 0.25))
    np.testing.assert_array_equal(llm.predict_proba_at(["sea"], [[0]])[0], np.full((1, 4), 0.25))
    assert llm.predict_proba([]).shape == (0, 4)
    assert llm.predict_proba_at([], []) == []


def test_a_special_token_in_a_text_is_text(llm) -> None:
    text = llm._tokenize(["a</s>b<pad>"])[0]
    assert not {*text.ids} & {*llm.tokenizer_.all_special_ids} and text.snap(3) == (3, 3)
    assert llm.tokenizer_.decode(text.ids) == "a</s>b<pad>"


def test_long_texts_are_cut_at_max_length(llm) -> None:
    classifier = copy.copy(llm).set_params(max_length=8)
    text = "The book tells of snow and goats " * 50
    whole, at_end = classifier.predict_proba([text]), classifier.predict_proba_at([text], [[len(text)]])[0]
    np.testing.assert_allclose(at_end, whole, atol=1e-6)
    six = llm.tokenizer_(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][5][1]
    np.testing.assert_allclose(llm.predict_proba([text[:six]]), whole, atol=1e-6)
    check_classifier(llm, [text])  # longer than the context of 256


def test_saved_folder_gives_the_same_and_holds_no_pickle(
    llm, test_rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm.save(tmp_path / "a" / "classifier")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["classifier"]
    names = {path.name for path in (tmp_path / "a" / "classifier").iterdir()}
    assert {path.rpartition(".")[2] for path in names} <= {"json", "safetensors", "jinja"}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for target in ("pickle.load", "pickle.loads", "torch.load"):
        monkeypatch.setattr(target, refuse)
    state = torch.get_rng_state()
    loaded = load_classifier(tmp_path / "a" / "classifier", device="cpu")
    assert isinstance(loaded, LLMClassifier)
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.classes_.tolist() == llm.classes_.tolist()
    assert loaded.num_epochs == llm.num_epochs
    texts = test_rows.texts + STRANGE
    np.testing.assert_allclose(loaded.predict_proba(texts), llm.predict_proba(texts), atol=1e-6)


def test_saving_is_whole_or_not_at_all(llm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm.save(tmp_path / "classifier")
    before = {path.name: path.read_bytes() for path in (tmp_path / "classifier").iterdir()}
    broken = copy.copy(llm)
    broken.head_ = None
    with pytest.raises(AttributeError):
        broken.save(tmp_path / "classifier")
    assert {path.name: path.read_bytes() for path in (tmp_path / "classifier").iterdir()} == before
    llm.save(tmp_path / "classifier")  # may take the place of a classifier
    assert [path.name for path in tmp_path.iterdir()] == ["classifier"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no classifier to replace"):
        llm.save(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_load_refuses_other_folders_and_formats(llm, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no dareu_classifier\.json"):
        LLMClassifier.load(tmp_path)
    (tmp_path / "dareu_classifier.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(ValueError, match="has format 2"):
        LLMClassifier.load(tmp_path)


# peft 0.21 still asks transformers for the old name; drop this when it no longer does.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_lora_is_seeded_merged_and_leaves_the_given_model_alone(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer, train_rows, tmp_path: Path
) -> None:
    model = tiny_llama()
    before = copy.deepcopy(model.state_dict())

    def fit(seed: int) -> LLMClassifier:
        classifier = LLMClassifier(
            model, tokenizer=tokenizer, num_epochs=1, learning_rate=1e-2, seed=seed, device="cpu"
        )
        return classifier.fit(*train_rows)

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = fit(0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert not any("lora" in name for name, _ in first.backbone_.named_parameters())
    trained = {
        name
        for name, tensor in first.backbone_.state_dict().items()
        if not torch.equal(tensor, before[f"model.{name}"])
    }
    assert {name.split(".")[-2] for name in trained} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    expected = first.predict_proba(train_rows.texts)
    torch.rand(3)
    np.testing.assert_array_equal(fit(0).predict_proba(train_rows.texts), expected)
    assert np.abs(fit(1).predict_proba(train_rows.texts) - expected).max() > 1e-4
    first.save(tmp_path / "lora")
    loaded = LLMClassifier.load(tmp_path / "lora", device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(train_rows.texts), expected, atol=1e-6)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first)).predict_proba(train_rows.texts), expected)


def test_trains_from_a_folder_without_bos_pad_or_eos(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer, train_rows, tmp_path: Path
) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    tiny_llama().save_pretrained(tmp_path)
    bare.save_pretrained(tmp_path)
    classifier = LLMClassifier(tmp_path, lora=False, num_epochs=1, device="cpu").fit(*train_rows)
    check_classifier(classifier, train_rows.texts[:3] + STRANGE)


def test_calibrates_and_clones(llm, train_rows, test_rows) -> None:
    calibrated = CalibratedClassifierCV(FrozenEstimator(llm), cv=2).fit(*train_rows)
    check_classifier(calibrated, test_rows.texts)
    assert list(calibrated.classes_) == list(llm.classes_)
    assert not hasattr(clone(llm), "classes_")


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", "b"], ["Ada"], "2 texts but 1 labels"),
        (["a", "b"], ["Ada", "Ada"], "at least two classes"),
        (["a", ""], ["Ada", "Bo"], r"Training text 1 \(''\) has no tokens"),
    ],
)
def test_fit_refuses_bad_rows(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer, texts: list[str], labels: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LLMClassifier(tiny_llama(), tokenizer=tokenizer).fit(texts, labels)


def test_fit_refuses_a_max_length_without_room() -> None:
    with pytest.raises(ValueError, match="max_length is 2"):
        LLMClassifier("unused", max_length=2).fit(["a", "b"], ["Ada", "Bo"])


def test_rounding_in_large_hidden_states_is_no_looking_ahead(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer
) -> None:
    """SmolLM2-135M's states are apart by 5e-4 for rounding alone."""
    model = tiny_llama()
    model.model.norm.register_forward_hook(lambda module, inputs, states: 100 * states + 5e-4 * states.shape[1])
    LLMClassifier(model, tokenizer=tokenizer, num_epochs=1).fit(["a", "b"], ["Ada", "Bo"])


def test_fit_refuses_models_that_cannot_serve(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer, tmp_path: Path
) -> None:
    rows = ["a", "b"], ["Ada", "Bo"]
    with pytest.raises(ValueError, match="without its tokenizer"):
        LLMClassifier(tiny_llama()).fit(*rows)
    with pytest.raises(ValueError, match="cannot load a causal language model from"):
        LLMClassifier(str(tmp_path)).fit(*rows)
    encoder = BertModel(BertConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(ValueError, match="BertModel looks ahead"):
        LLMClassifier(encoder, tokenizer=tokenizer).fit(*rows)


def test_fit_refuses_an_adapter_and_quantised_weights(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer, tmp_path: Path
) -> None:
    """LoRA that the classifier adds would take the adapter's place."""
    rows = ["a", "b"], ["Ada", "Bo"]
    tiny_llama().save_pretrained(tmp_path / "base")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    for model, given in ((tmp_path / "adapter", None), (adapted, tokenizer), (adapted.get_base_model(), tokenizer)):
        with pytest.raises(ValueError, match=r"no model with an adapter.*load_model"):
            LLMClassifier(model, tokenizer=given).fit(*rows)
    LLMClassifier(adapted.merge_and_unload(), tokenizer=tokenizer, num_epochs=1).fit(*rows)
    base.is_quantized = True
    with pytest.raises(ValueError, match="takes no quantised model"):
        LLMClassifier(base, tokenizer=tokenizer).fit(*rows)


def test_a_head_is_as_wide_as_the_last_hidden_states(tokenizer: PreTrainedTokenizerFast) -> None:
    """OPT may project them to another width than its layers have."""
    sizes = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = OPTConfig(vocab_size=len(tokenizer), word_embed_proj_dim=8, max_position_embeddings=64, **sizes)
    model = OPTForCausalLM(config).eval()
    classifier = LLMClassifier(model, tokenizer=tokenizer, num_epochs=1, device="cpu").fit(
        ["sea", "snow"], ["Ada", "Bo"]
    )
    assert classifier.head_.in_features == 8 and classifier.predict_proba(["sea"]).shape == (1, 2)


def test_what_lora_cannot_do_is_said_with_the_remedy(tokenizer: PreTrainedTokenizerFast) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=len(tokenizer), num_key_value_heads=2, num_local_experts=2, **sizes)
    model = MixtralForCausalLM(config).eval()
    with pytest.raises(
        ValueError, match=r"cannot put LoRA on Mixtral.*lora_kwargs otherwise, such as \{'lora_dropout': 0"
    ):
        LLMClassifier(model, tokenizer=tokenizer, num_epochs=1, device="cpu").fit(["sea", "snow"], ["Ada", "Bo"])
