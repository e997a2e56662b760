import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer

from dareu.metrics import generate_answers

PROMPTS = ["Who?", "Where was Kofi Mensah born, and when?", "Which prize did she win?", "Who?", "Sea", "A"]


def greedy_ids(model, tokenizer, prompt, steps):
    """The definition: one row, no cache, no padding."""
    ids = tokenizer(prompt).input_ids
    start = len(ids)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[start:]


def reference_answers(model, tokenizer, prompts, steps):
    answers = []
    for prompt in prompts:
        ids = greedy_ids(model, tokenizer, prompt, steps)
        if tokenizer.eos_token_id in ids:
            ids = ids[: ids.index(tokenizer.eos_token_id)]
        answers.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
    return answers


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_equals_the_definition_at_any_batch_size(tiny_llama, tokenizer, batch_size):
    model = tiny_llama()
    answers = generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=batch_size)
    assert answers == reference_answers(model, tokenizer, PROMPTS, 12)
    assert len(set(answers)) > 2  # the comparison is of something


def test_settings_of_the_model_are_neither_heeded_nor_changed(tiny_llama, tokenizer):
    model = tiny_llama()
    expected = generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12)
    likely = greedy_ids(model, tokenizer, PROMPTS[0], 2)
    settings = {
        "do_sample": True, "temperature": 5.0, "top_k": 3, "num_beams": 3, "num_return_sequences": 2,
        "repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "suppress_tokens": likely, "min_new_tokens": 11,
        "forced_eos_token_id": 7, "max_length": 3, "use_cache": False, "output_scores": True,
        "return_dict_in_generate": True, "min_p": 0.5, "typical_p": 0.1, "bad_words_ids": [likely[:1]],
        "sequence_bias": [[likely[:1], -99.0]], "begin_suppress_tokens": likely, "forced_bos_token_id": 9,
        "exponential_decay_length_penalty": [1, 9.0], "guidance_scale": 3.0, "renormalize_logits": True,
    }  # fmt: skip
    model.generation_config.update(**settings)
    before = copy.deepcopy(vars(model.generation_config))
    sided = copy.deepcopy(tokenizer)
    sided.padding_side = "right"
    random_state = torch.get_rng_state()
    assert generate_answers(model, sided, PROMPTS, max_new_tokens=12) == expected
    assert vars(model.generation_config) == before
    assert sided.padding_side == "right"
    assert torch.equal(torch.get_rng_state(), random_state)


def test_model_modes_are_left_alone_and_dropout_is_off(tiny_llama, tokenizer):
    model = tiny_llama(attention_dropout=0.5)
    expected = generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12)
    model.train()
    model.lm_head.eval()
    modes = [module.training for module in model.modules()]
    assert generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12) == expected
    assert [module.training for module in model.modules()] == modes


def test_stops_at_the_end_tokens_of_tokenizer_and_model(tiny_llama, tokenizer, monkeypatch):
    model = tiny_llama()
    ids = greedy_ids(model, tokenizer, PROMPTS[1], 12)
    end = next(token for token in ids[3:] if token not in ids[:3])
    added = tokenizer.added_tokens_decoder | {end: AddedToken(tokenizer.convert_ids_to_tokens(end))}
    monkeypatch.setattr(type(tokenizer), "added_tokens_decoder", property(lambda _: added))
    expected = tokenizer.decode(ids[: ids.index(end)], skip_special_tokens=True).strip()
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    assert generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12)[1] == expected
    model.generation_config.eos_token_id = end
    assert generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12)[1] == expected
    model.generation_config.eos_token_id = None
    ended = copy.deepcopy(tokenizer)
    ended.eos_token = ended.convert_ids_to_tokens(end)
    assert generate_answers(model, ended, PROMPTS, max_new_tokens=12)[1] == expected


def test_answer_that_ends_at_once_is_empty(tiny_llama, tokenizer, monkeypatch):
    model = tiny_llama()
    every = {token: AddedToken(str(token)) for token in range(len(tokenizer))}
    monkeypatch.setattr(type(tokenizer), "added_tokens_decoder", property(lambda _: every))
    model.generation_config.eos_token_id = list(range(len(tokenizer)))
    assert generate_answers(model, tokenizer, PROMPTS) == [""] * len(PROMPTS)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # asked by PEFT
def test_adapters_answer_and_the_model_within_keeps_its_settings(tiny_llama, tokenizer):
    model = tiny_llama()
    plain = generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12)
    model.generation_config.update(do_sample=True, temperature=3.0)
    before = copy.deepcopy(vars(model.generation_config))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "o_proj"], task_type="CAUSAL_LM"))
    assert generate_answers(adapted, tokenizer, PROMPTS, max_new_tokens=12) == plain
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
    moved = generate_answers(adapted, tokenizer, PROMPTS, max_new_tokens=12)
    assert moved != plain
    assert moved == reference_answers(adapted, tokenizer, PROMPTS, 12)
    assert vars(model.generation_config) == before
    assert vars(adapted.generation_config) == before


def test_answers_fill_the_context_and_no_more(tiny_llama, tokenizer):
    prompts = ["Where was Kofi Mensah born, and when?", "Who?"]
    lengths = [len(tokenizer(prompt).input_ids) for prompt in prompts]
    model = tiny_llama(max_position_embeddings=lengths[0] + 3)
    expected = [
        reference_answers(model, tokenizer, prompts[:1], 3)[0],
        reference_answers(model, tokenizer, prompts[1:], lengths[0] + 3 - lengths[1])[0],
    ]
    assert generate_answers(model, tokenizer, prompts) == expected


def test_prompt_without_room_is_named(tiny_llama, tokenizer):
    length = len(tokenizer(PROMPTS[1]).input_ids)
    assert len(generate_answers(tiny_llama(max_position_embeddings=length + 1), tokenizer, PROMPTS[:2])) == 2
    with pytest.raises(ValueError, match=f"Row 1: the prompt has {length} tokens, .* at most {length - 1}"):
        generate_answers(tiny_llama(max_position_embeddings=length), tokenizer, PROMPTS[:2])


def test_bad_arguments(tiny_llama, tokenizer):
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        generate_answers(tiny_llama(), tokenizer, PROMPTS, max_new_tokens=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        generate_answers(tiny_llama(), tokenizer, PROMPTS, batch_size=0)
    assert generate_answers(tiny_llama(), tokenizer, []) == []


def test_chat_prompts_go_through_the_template(tiny_llama, tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    model = tiny_llama()
    [answer] = generate_answers(model, chatty, [[{"role": "user", "content": "Who?"}]], max_new_tokens=12)
    assert [answer] == reference_answers(model, tokenizer, ["user: Who?\nassistant:"], 12)


def test_real_model(shared_dir):
    path = shared_dir / "models/stories260k"
    if not path.is_dir():
        pytest.skip(f"no {path}")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    answers = generate_answers(model, tokenizer, ["Once upon", "Lily was"], max_new_tokens=12)
    assert answers[0].startswith("a time, there was a little girl named")
