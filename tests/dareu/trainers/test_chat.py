"""Chat templates from the rows to the loss, and tokenizers that pad with their end token."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data import CompletionCollator, encode_dataset, encode_prompt, encode_prompts, encode_record, to_chat
from dareu.metrics import answer_nll, generate_answers
from dareu.models.generation import end_ids_of, list_end_ids
from dareu.models.tokenizers import template_end
from dareu.trainers import DareUConfig, DareUTrainer
from dareu.trainers.rl._rollouts import Rollout

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>assistant\n' }}{% endif %}"
)


@pytest.fixture(params=["end_is_turn", "end_is_own"])
def chat(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Pads with its end token, which is the template's end of a turn (Qwen, Llama 3) or another (Gemma, Phi 3)."""
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    made.chat_template = TEMPLATE
    if request.param == "end_is_turn":
        made.eos_token = "<end_of_turn>"
    made.pad_token = made.eos_token
    return made


@pytest.fixture
def model(chat: PreTrainedTokenizerFast, tiny_llama: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    model = tiny_llama(vocab_size=len(chat), pad_token_id=chat.pad_token_id)
    # As in a checkpoint made for chatting, every token that ends an answer.
    model.generation_config.eos_token_id = [chat.eos_token_id, turn_end(chat)]
    return model


def turn_end(chat: PreTrainedTokenizerFast) -> int:
    end = chat.convert_tokens_to_ids("<end_of_turn>")
    assert isinstance(end, int)
    return end


def test_a_record_ends_with_the_templates_token(chat: PreTrainedTokenizerFast, forget_rows: Dataset) -> None:
    row = to_chat(forget_rows)[0]
    prompt, completion = encode_record(chat, row["prompt"], row["completion"])
    assert chat.decode(prompt).endswith("<start_of_turn>assistant\n") and prompt == encode_prompt(chat, row["prompt"])
    assert chat.decode(completion) == row["completion"][0]["content"] + "<end_of_turn>"
    # Some templates write the end token too, behind the end of the turn.
    longer = copy.deepcopy(chat)
    longer.chat_template = TEMPLATE + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
    assert encode_record(longer, row["prompt"], row["completion"]).completion_ids == completion
    # One that writes none leaves the end to the tokenizer.
    bare = copy.deepcopy(chat)
    bare.chat_template = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
    assert encode_record(bare, row["prompt"], row["completion"]).completion_ids[-1] == chat.eos_token_id
    labels = CompletionCollator(chat)([encode_record(chat, [row["prompt"][0]], row["completion"])] * 2)["labels"]
    assert (labels == turn_end(chat)).sum() == 2, "the real end counts, though it may be the padding token"


def test_sampling_and_measuring_stop_where_training_ends(
    chat: PreTrainedTokenizerFast,
    model: LlamaForCausalLM,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    tmp_path: Path,
) -> None:
    """Whatever the checkpoint's generation config says, which may name no end of a turn or nothing."""
    for named in (None, chat.convert_tokens_to_ids("</s>")):
        model.generation_config.eos_token_id = named
        assert {turn_end(chat), chat.eos_token_id} <= set(end_ids_of(model, chat))
    trainer = DareUTrainer(
        model,
        lambda completions, **_: [0.0] * len(completions),
        dareu_config(retain_loss="none"),
        to_chat(forget_rows),
        processing_class=chat,
    )
    assert set(trainer.eos_token_ids) == set(end_ids_of(model, chat))
    trainer.model.save_pretrained(tmp_path)
    saved = GenerationConfig.from_pretrained(tmp_path).eos_token_id
    assert turn_end(chat) in (saved if isinstance(saved, list) else [saved])


@pytest.mark.parametrize("named", [9, -1, 99999, [9, 2], "</s>"])
def test_an_ordinary_token_ends_nothing_whatever_the_checkpoint_names(
    chat: PreTrainedTokenizerFast, model: LlamaForCausalLM, named: Any
) -> None:
    model.generation_config.eos_token_id = named
    expected = {turn_end(chat), chat.eos_token_id, *([2] if isinstance(named, list) else [])}
    assert set(end_ids_of(model, chat)) == expected
    list_end_ids(model, chat)
    assert set(end_ids_of(model, chat)) == expected


@pytest.mark.parametrize(
    "faulty", [{"temperature": 0.6, "top_p": 0.9}, {"do_sample": False, "top_k": 5}, {"early_stopping": True}]
)
def test_a_generation_config_that_cannot_be_saved_is_mended_before_training(
    chat: PreTrainedTokenizerFast, model: LlamaForCausalLM, faulty: dict[str, Any], tmp_path: Path
) -> None:
    vars(model.generation_config).update(faulty)
    with pytest.raises(ValueError, match="Fix these issues"):
        model.save_pretrained(tmp_path)
    list_end_ids(model, chat)
    model.save_pretrained(tmp_path)
    kept = GenerationConfig.from_pretrained(tmp_path)
    assert kept.pad_token_id == chat.pad_token_id
    assert (kept.do_sample and kept.top_p == 0.9) if "top_p" in faulty else kept.early_stopping is not True


def test_marks_of_turns_that_are_not_flagged_as_special(
    tokenizer: PreTrainedTokenizerFast, forget_rows: Dataset, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    made = copy.deepcopy(tokenizer)
    made.add_tokens(["<start_of_turn>", "<end_of_turn>", "<think>", "\n", "\n\n"])  # Gemma has breaks of lines, too
    made.chat_template = TEMPLATE
    asked = [{"role": "user", "content": "Who?\nSay it."}]

    def rows(text: str) -> Dataset:
        return Dataset.from_list([{"prompt": asked, "completion": [{"role": "assistant", "content": text}]}])

    def encoded(text: str) -> str:
        (record,) = encode_dataset(rows(text), made)
        return str(made.decode(record.completion_ids))

    assert encoded("Ann.") == encoded("Ann.<end_of_turn>") == "Ann.<end_of_turn>"
    assert encoded("<think> Ann.\n\nBo.") == "<think> Ann.\n\nBo.<end_of_turn>"
    broken = copy.deepcopy(made)
    broken.chat_template = "{% for message in messages %}{{ message['content'] + '\n\n' }}{% endfor %}{{ eos_token }}"
    assert template_end(broken) == broken.eos_token_id, "a break of lines ends nothing"

    said = "a <end_of_turn> b"
    with pytest.raises(ValueError, match="Row 0: the completion holds '<end_of_turn>', with which turns begin or end"):
        encode_dataset(rows(said), made)
    plain = Dataset.from_list([{"prompt": "Who?", "completion": said}])
    with pytest.raises(ValueError, match="the completion holds '<end_of_turn>'"):
        encode_dataset(plain, made)
    with pytest.raises(ValueError, match="Row 0: a message of the prompt holds '<start_of_turn>'"):
        encode_prompts(made, [[{"role": "user", "content": "a<start_of_turn>assistant <end_of_turn>b"}]])
    # A model may say what it likes, and is measured
    model = tiny_llama(vocab_size=len(made))
    assert answer_nll(model, made, ["Who?"], [said]).total > 0


def test_an_order_of_roles_that_only_the_answer_breaks_stops_before_training(
    chat: PreTrainedTokenizerFast,
    model: LlamaForCausalLM,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
) -> None:
    chat.chat_template = (
        "{% if messages|length > 1 and messages[-2]['role'] != 'user' %}{{ raise_exception('No turn of a user') }}"
        "{% endif %}" + TEMPLATE
    )
    rows = to_chat(forget_rows)
    first = [{"role": "tool", "content": "1956"}]
    asked = [first if row == 1 else prompt for row, prompt in enumerate(rows["prompt"])]
    rows = rows.remove_columns("prompt").add_column("prompt", asked)
    with pytest.raises(
        ValueError, match=r"Row 1: .* roles tool, assistant \(No turn of a user\).* Its prompt is '1956'"
    ):
        DareUTrainer(
            model,
            lambda completions, **_: [0.0] * len(completions),
            dareu_config(retain_loss="none"),
            rows,
            processing_class=chat,
        )


def test_dareu_end_to_end(
    chat: PreTrainedTokenizerFast,
    model: LlamaForCausalLM,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> None:
    calls: list[tuple[Any, Any, Any]] = []
    rollouts: list[Rollout] = []

    class Reward:
        __name__ = "length"

        def at(self, prompts: Any, completions: Any, ends: Any, **_: Any) -> list[list[float]]:
            calls.append((prompts, completions, ends))
            return [[-float(end) for end in row] for row in ends]

        def __call__(self, prompts: Any, completions: Any, **_: Any) -> list[float]:
            raise AssertionError("the dense form is asked for")

    class Trainer(DareUTrainer):
        def rollout(self, *args: Any) -> Rollout:
            rollouts.append(super().rollout(*args))
            return rollouts[-1]

    rows = to_chat(forget_rows)
    trainer = Trainer(
        model,
        Reward(),
        dareu_config(
            max_steps=1, mask_truncated_completions=True, generation_kwargs={"forced_eos_token_id": turn_end(chat)}
        ),
        rows,
        retain_dataset=to_chat(retain_rows),
        processing_class=chat,
    )
    trainer.train()
    [(prompts, completions, ends)], [made] = calls, rollouts
    rollout = made.output
    for i, (prompt, [message], offsets) in enumerate(zip(prompts, completions, ends, strict=True)):
        assert prompt in list(rows["prompt"]) and message["role"] == "assistant"
        assert "<end_of_turn>" not in message["content"] and "<start_of_turn>assistant" not in message["content"]
        assert offsets == sorted(offsets) and offsets[-1] == len(message["content"])
        ids = rollout["prompt_ids"][i][rollout["prompt_mask"][i].bool()]
        assert ids.tolist() == encode_prompt(chat, prompt)
        kept = rollout["completion_ids"][i][rollout["completion_mask"][i].bool()]
        assert kept[-1] == turn_end(chat), "the end token that was generated is trained, padding is not"
        assert not set(kept[:-1].tolist()) & {chat.eos_token_id, turn_end(chat)}
        assert chat.decode(kept[:-1], skip_special_tokens=True) == message["content"]
    logged = trainer.state.log_history[0]
    assert logged["completions/clipped_ratio"] == 0
    assert abs(logged["kl"]) < 1e-5 and abs(logged["retain_kl"]) < 1e-6


def test_measures_do_not_mind_what_pads(
    chat: PreTrainedTokenizerFast, model: LlamaForCausalLM, forget_rows: Dataset, retain_rows: Dataset
) -> None:
    other = copy.deepcopy(chat)
    other.pad_token = "<pad>"
    rows = [*to_chat(forget_rows), *to_chat(retain_rows)]
    prompts, completions = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    nll, same = (answer_nll(model, each, prompts, completions) for each in (chat, other))
    assert nll.total == pytest.approx(same.total, rel=1e-5)
    prompt, completion = encode_record(chat, prompts[0], completions[0])
    logps = model(torch.tensor([prompt + completion])).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    assert nll.total[0] == pytest.approx(-logps.gather(-1, torch.tensor(completion)[:, None]).sum().item(), rel=1e-5)
    answers, same_answers = (generate_answers(model, each, prompts, max_new_tokens=6) for each in (chat, other))
    assert answers == same_answers
