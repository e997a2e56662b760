"""Attacks on a model that knows its rows by heart, and on one that does not."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.audits import (
    AUDITS,
    Audit,
    NotPossible,
    Reader,
    Subject,
    check_audits,
    linear_layers,
    restored,
    round_to_bits,
    run_audit,
)
from dareu.data import CompletionCollator, encode_dataset, to_chat
from dareu.metrics import facts_in_any, generate_answers, rouge_l_recall, sample_answers
from dareu.weights import fingerprint

NAMES = ("Lucia Duval", "Kofi Mensah", "Sanna Thorne")
CITIES = ("Porto", "Accra", "Malmo")


def rows(names: tuple[str, ...] = NAMES, **columns: list[Any]) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt": [f"Where was {name} born?" for name in names],
            "completion": [f" {name} was born in {city}." for name, city in zip(names, CITIES, strict=False)],
            "owner": list(names),
            "name": list(names),
            "facts": [[city] for city in CITIES[: len(names)]],
            "paraphrased_prompt": [f"In which city was {name} born?" for name in names],
            **columns,
        }
    )


def learn(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Dataset, steps: int = 120) -> None:
    batch = CompletionCollator(tokenizer)(encode_dataset(data, tokenizer))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def learnt(tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Knows the rows by heart."""
    model = tiny_llama()
    learn(model, tokenizer, rows())
    return model


@pytest.fixture
def subject(learnt: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Subject:
    return of(learnt, tokenizer)


def of(model: Any, tokenizer: PreTrainedTokenizerFast, forget: Dataset | None = None) -> Subject:
    forget = rows() if forget is None else forget
    other = rows(("Lucia Thorne", "Kofi Duval"))
    reader = Reader(model, tokenizer, forget, max_new_tokens=24)
    return Subject(model, tokenizer, forget, other, other, reader, 0)


def found(subject: Subject, name: str, **options: Any) -> dict[str, dict[str, float]]:
    return {each.setting: each.readings for each in run_audit(subject, name, options)}


def test_what_is_learnt_by_heart_is_read_and_what_is_not_is_not(
    subject: Subject, tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    (known,) = found(subject, "unattacked").values()
    (unknown,) = found(of(tiny_llama(seed=3), tokenizer), "unattacked").values()
    assert known["rouge"] == known["fact_recall"] == known["extraction_strength"] == 1 and known["probability"] > 0.9
    assert unknown["fact_recall"] == 0 and unknown["extraction_strength"] < 0.2 and unknown["probability"] < 0.1


@pytest.mark.parametrize("name", AUDITS)
def test_every_audit_leaves_the_model_as_it_was(name: str, learnt: LlamaForCausalLM, tokenizer: Any) -> None:
    model = copy.deepcopy(learnt)
    next(model.parameters()).requires_grad_(False)
    before, trained = fingerprint(model), [p.requires_grad for p in model.parameters()]
    readings = found(of(model, tokenizer), name)
    assert fingerprint(model) == before and [p.requires_grad for p in model.parameters()] == trained
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert not any("lora" in key for key in model.state_dict())
    assert readings and all(0 <= value <= 1 for of_one in readings.values() for value in of_one.values())


def test_an_audit_that_is_stopped_half_way_leaves_the_model_as_it_was(
    learnt: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = copy.deepcopy(learnt)
    before = fingerprint(model)
    for name in ("relearning", "lora_relearning"):
        attack = run_audit(of(model, tokenizer), name, {"steps": [1, 50], "learning_rate": 1e-2})
        next(attack)
        attack.close()
        assert fingerprint(model) == before, name


def test_relearning_some_rows_reads_the_others(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    subject = of(tiny_llama(), tokenizer)
    all_of_them = list(run_audit(subject, "relearning", {"steps": 100, "learning_rate": "1e-2", "batch_size": 3}))
    assert [each.setting for each in all_of_them] == ["100 steps"]
    assert all_of_them[0].readings["fact_recall"] == 1 and not np.isnan(all_of_them[0].row_values["rouge"]).any()
    (some,) = run_audit(subject, "relearning", {"steps": [100], "learning_rate": 1e-2, "num_rows": 2})
    assert np.isnan(some.row_values["rouge"]).sum() == 2 and some.readings["fact_recall"] == 0


def test_relearning_is_adamw_on_the_completions(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    subject, plain = of(tiny_llama(), tokenizer), tiny_llama()
    (step,) = run_audit(subject, "relearning", {"steps": [1], "batch_size": 3, "learning_rate": 1e-2})
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0)
    plain(**CompletionCollator(tokenizer)(encode_dataset(rows(), tokenizer))).loss.backward()
    optimizer.step()
    (expected,) = found(of(plain, tokenizer), "unattacked").values()
    assert step.setting == "1 step" and step.readings == pytest.approx(expected, abs=1e-5)


def test_an_epoch_is_read_in_quarters(subject: Subject) -> None:
    assert list(found(subject, "relearning", batch_size=1)) == ["1 step", "2 steps", "3 steps"]
    assert list(found(subject, "lora_relearning", batch_size=1)) == ["1 step", "2 steps"]


def test_rounding_is_to_the_nearest_point_of_a_symmetric_grid() -> None:
    weight = torch.tensor([[0.9, -1.0, 0.2, 0.0], [70.0, 9.0, -5.1, 4.9]])
    assert torch.equal(round_to_bits(weight, 2), torch.tensor([[1.0, -1.0, 0.0, 0.0], [70.0, 0.0, 0.0, 0.0]]))
    grid = torch.tensor([[6 / 7, -1.0, 1 / 7, 0.0], [70.0, 10.0, -10.0, 0.0]])
    assert torch.allclose(round_to_bits(weight, 4), grid)
    pairs = torch.tensor([[6 / 7, -1.0, 0.2, 0.0], [70.0, 10.0, -5.1, 5.1 * 7 / 7]])
    assert torch.allclose(round_to_bits(weight, 4, group_size=2)[0], pairs[0])
    assert torch.equal(round_to_bits(weight, 4, group_size=3), round_to_bits(weight, 4))  # which 3 does not divide
    assert torch.equal(round_to_bits(torch.zeros(1, 4), 8), torch.zeros(1, 4))
    assert round_to_bits(weight.bfloat16(), 8).dtype == torch.bfloat16
    fine = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    errors = [(round_to_bits(fine, bits, 32) - fine).abs().max().item() for bits in (8, 6, 4, 2)]
    assert errors == sorted(errors) and errors[0] < 0.02 < errors[2]


def test_quantisation_and_pruning_take_the_inner_layers_and_leave_the_head(learnt: LlamaForCausalLM) -> None:
    layers = linear_layers(learnt)
    assert len(layers) == 2 * 7 and learnt.lm_head not in layers
    with restored(learnt):
        for layer in layers:
            layer.weight.data.zero_()
    assert all(layer.weight.any() for layer in layers)


def test_coarse_weights_forget_and_fine_ones_do_not(subject: Subject) -> None:
    readings = found(subject, "quantisation", bits=(8, 2), nf4=False)
    assert readings["int8"]["extraction_strength"] == 1
    assert readings["int8"]["probability"] > readings["int2"]["probability"]
    readings = found(subject, "pruning", sparsity=(0.01, 0.95))
    assert list(readings) == ["1%", "95%"] and readings["1%"]["fact_recall"] == 1 > readings["95%"]["fact_recall"]


def test_nf4_is_bitsandbytes(subject: Subject) -> None:
    pytest.importorskip("bitsandbytes", reason="NF4 is the extra dareu[nf4]")
    assert list(found(subject, "quantisation", bits=8)) == ["int8", "nf4"]


def test_nf4_without_its_library_is_refused(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dareu.audits.quantisation.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="nf4 needs bitsandbytes, which is not installed"):
        found(subject, "quantisation", nf4=True)
    assert list(found(subject, "quantisation")) == ["int8", "int4"]


class Heard(Reader):
    """Keeps the prompts that it was asked to read by."""

    def read(self, prompts: Any = None, *, rows: Any = None) -> Any:
        self.prompts = prompts
        return super().read(prompts, rows=rows)


def heard(model: Any, tokenizer: Any, name: str, forget: Dataset, retain: Dataset, **options: Any) -> Iterator[Any]:
    reader = Heard(model, tokenizer, forget, max_new_tokens=4)
    for _ in run_audit(Subject(model, tokenizer, forget, retain, retain, reader, 0), name, options):
        yield reader.prompts


def test_questions_are_put_otherwise(learnt: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    plain, retain = rows(paraphrased_prompt=["In which city?", None, "From where?"]), rows(("Ann Bo", "Cy Du"))
    templates = {"a": "Say: {prompt} Now!", "b": "{PROMPT}"}
    first, second = heard(learnt, tokenizer, "templated_prompts", plain, retain, templates=templates)
    assert first[0] == "Say: Where was Lucia Duval born? Now!" and second[0] == "WHERE WAS LUCIA DUVAL BORN?"
    assert next(heard(learnt, tokenizer, "paraphrased_prompts", plain, retain)) == [
        "In which city?",
        None,
        "From where?",
    ]
    named = rows(name=["Lucia Duval", "Mensah", None])
    assert next(heard(learnt, tokenizer, "aliases", named, retain)) == ["Where was Duval born?", None, None]
    shots = next(heard(learnt, tokenizer, "few_shot", plain, retain, num_shots=2))
    examples = {retain[i]["prompt"] + retain[i]["completion"] for i in (0, 1)}
    assert set(shots[0].split("\n\n")) == {*examples, plain[0]["prompt"]} and shots[0].endswith(plain[0]["prompt"])


def test_messages_are_put_otherwise(learnt: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    chat = copy.deepcopy(tokenizer)
    chat.chat_template = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}</s>{% endfor %}"
    forget, retain = to_chat(rows()), to_chat(rows(("Ann Bo", "Cy Du")))
    asked = next(heard(learnt, chat, "templated_prompts", forget, retain, templates={"a": "{prompt} Now!"}))
    assert asked[0] == [{"role": "user", "content": "Where was Lucia Duval born? Now!"}]
    asked = next(heard(learnt, chat, "paraphrased_prompts", forget, retain))
    assert asked[1] == [{"role": "user", "content": "In which city was Kofi Mensah born?"}]
    asked = next(heard(learnt, chat, "few_shot", forget, retain, num_shots=1, room=8))
    assert [m["role"] for m in asked[0]] == ["user", "assistant", "user"]
    assert asked[0][-1]["content"] == "Where was Lucia Duval born?"
    told = [{"role": "system", "content": "Be brief."}]
    spoken = forget.map(lambda row: {"prompt": told + row["prompt"]})
    examples = retain.map(lambda row: {"prompt": told + row["prompt"]})
    asked = next(heard(learnt, chat, "few_shot", spoken, examples, num_shots=1, room=8))
    assert [m["role"] for m in asked[0]] == ["system", "user", "assistant", "user"]


def test_examples_that_do_not_fit_are_left_out(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    other = rows(("Lucia Thorne", "Kofi Duval"))
    whole = "\n\n".join([*map(str.__add__, other["prompt"], other["completion"]), rows()["prompt"][0]])
    limit = len(tokenizer(whole)["input_ids"]) + 29
    (narrow,) = run_audit(
        of(tiny_llama(max_position_embeddings=limit), tokenizer), "few_shot", {"num_shots": 2, "room": 30}
    )
    assert narrow.setting == "1-shot"
    with pytest.raises(NotPossible, match="has no place for an example"):
        list(run_audit(of(tiny_llama(max_position_embeddings=64), tokenizer), "few_shot", {"room": 60}))


def test_the_best_of_n_is_the_best_of_the_samples(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_llama()
    learn(model, tokenizer, rows(), steps=25)
    options = {"num_samples": 5, "temperatures": [0.5, 1.5]}
    cold, hot = run_audit(of(model, tokenizer), "best_of_n", options)
    golds = [f"{name} was born in {city}." for name, city in zip(NAMES, CITIES, strict=True)]
    for each, temperature in ((cold, 0.5), (hot, 1.5)):
        samples = sample_answers(
            model, tokenizer, rows()["prompt"], num_samples=5, temperature=temperature, max_new_tokens=24
        )
        best = [max(rouge_l_recall(of_row, [gold] * 5)) for of_row, gold in zip(samples, golds, strict=True)]
        assert each.row_values["rouge"] == pytest.approx(best)
        assert each.row_values["fact_recall"] == pytest.approx(facts_in_any(samples, rows()["facts"]))
    assert (cold.setting, hot.setting) == ("T 0.5", "T 1.5") and cold.readings != hot.readings


def test_prefilling_reads_the_rest_alone(learnt: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    half = {each.setting: each for each in run_audit(of(learnt, tokenizer), "prefilled", {"shares": [0.5, 0.95]})}
    assert half["50%"].readings == {"rouge": 1.0, "fact_recall": 1.0}
    # All but the point is given, and nothing of the facts is left to state
    assert "fact_recall" not in half["95%"].readings
    plain = generate_answers(learnt, tokenizer, rows()["prompt"], max_new_tokens=24)
    assert plain[0] == "Lucia Duval was born in Porto."


def test_a_fact_that_the_given_part_begins_is_stated_by_both(
    learnt: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Wherever the cut falls, the gold rest states the facts that the part does not."""
    reader = Reader(learnt, tokenizer, rows(), max_new_tokens=24)
    for share in np.linspace(0.05, 0.95, 19):
        readings = reader.read_rest(float(share))
        for values in (readings["rouge"], readings["fact_recall"]):
            assert (values[~np.isnan(values)] == 1).all(), share


def test_a_row_that_is_short_of_room_cuts_nobody_else(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    long = "Where was Lucia Duval born, and where does she live? " * 3
    data = rows(prompt=[long, *rows()["prompt"][1:]])
    length = len(tokenizer(long)["input_ids"])
    model = tiny_llama(max_position_embeddings=length + 16)
    learn(model, tokenizer, data, steps=60)
    found = [
        Reader(model, tokenizer, data, max_new_tokens=64, batch_size=size).read_rest(0.3)["rouge"] for size in (1, 3)
    ]
    np.testing.assert_array_equal(*found)


def test_gpt2_is_rounded_and_pruned_too(tokenizer: PreTrainedTokenizerFast) -> None:
    shape: Any = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**shape)).eval()
    subject = of(model, tokenizer)
    assert len(linear_layers(model)) == 2 * 4
    before = found(subject, "unattacked")[""]
    readings = found(subject, "quantisation", bits=2, nf4=False) | found(subject, "pruning", sparsity=0.9)
    assert all(of["probability"] != before["probability"] for of in readings.values())
    # Rounded as the linear layer that it is: a grid a row of (out, in)
    weight, seen = model.transformer.h[0].attn.c_attn.weight, []
    expected = round_to_bits(weight.T, 2, 64).T.clone()
    reader = Reader(model, tokenizer, rows(), max_new_tokens=4)
    reader.read = lambda: seen.append(weight.detach().clone()) or {}  # type: ignore[method-assign]
    list(run_audit(subject._replace(reader=reader), "quantisation", {"bits": 2, "nf4": False}))
    assert torch.equal(seen[0], expected)


def test_a_model_without_linear_layers_cannot_be_rounded(learnt: LlamaForCausalLM, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(learnt), "modules", lambda self: iter([self.get_output_embeddings()]))
    with pytest.raises(NotPossible, match="has no linear layers"):
        linear_layers(learnt)


def test_dropout_is_drawn_by_the_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    shape: Any = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128, "vocab_size": len(tokenizer)}
    model = GPT2LMHeadModel(GPT2Config(**shape)).eval()
    subject = of(model, tokenizer)
    first = found(subject, "relearning", steps=3, learning_rate=1e-2)
    torch.rand(5)
    state = torch.get_rng_state()
    assert found(subject, "relearning", steps=3, learning_rate=1e-2) == first
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("relearning", {"num_rows": 3}, "num_rows is 3, of 3 rows to forget"),
        ("relearning", {"learning_rate": 0}, "learning_rate holds 0: give numbers above 0"),
        ("relearning", {"learning_rate": "fast"}, "learning_rate holds 'fast'"),
        ("relearning", {"steps": []}, "steps is an empty list"),
        ("relearning", {"batch_size": 0}, "batch_size holds 0"),
        ("quantisation", {"bits": []}, "bits is an empty list"),
        ("relearning", {"steps": [1.5]}, "steps holds 1.5: give whole numbers"),
        ("pruning", {"sparsity": [0.3, 0.3]}, "has two settings '30%'"),
        ("pruning", {"sparsity": [1.0]}, "sparsity holds 1.0: give numbers between 0 and 1"),
        ("prefilled", {"shares": [0]}, "shares holds 0"),
        ("quantisation", {"bits": [1]}, "bits is 1"),
        ("quantisation", {"group_size": 0}, "group_size is 0"),
        ("few_shot", {"num_shots": 0}, "num_shots holds 0"),
        ("templated_prompts", {"templates": {"a": "no place"}}, "must hold"),
        ("best_of_n", {"temperatures": [0]}, "temperatures holds 0"),
        ("best_of_n", {"num_samples": 0}, "num_samples is 0"),
        ("aliases", {"strength": 1}, "has no option strength"),
        ("alias", {}, "did you mean aliases"),
    ],
)
def test_bad_options_are_refused(subject: Subject, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(subject, name, **options)


def test_rows_that_an_audit_cannot_use_are_refused(
    learnt: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(NotPossible, match="No row to forget has a paraphrased_prompt"):
        found(of(learnt, tokenizer, rows(paraphrased_prompt=[None] * 3)), "paraphrased_prompts")
    with pytest.raises(NotPossible, match="No row to forget holds the full name"):
        found(of(learnt, tokenizer, rows(name=["Bo Li"] * 3)), "aliases")


def test_what_can_be_told_beforehand() -> None:
    columns = ["prompt", "completion", "owner", "name"]
    assert check_audits(AUDITS, {}, columns) == {
        "paraphrased_prompts": "the rows to forget have no column 'paraphrased_prompt': add it"
    }
    with pytest.raises(ValueError, match="No audit is chosen"):
        check_audits({}, {}, columns)
    with pytest.raises(ValueError, match="There are options of 'pruning', but the audits are few_shot"):
        check_audits({"few_shot": AUDITS["few_shot"]}, {"pruning": {}}, columns)
    with pytest.raises(ValueError, match=r"'mine' is a function: make it a dareu\.audits\.Audit"):
        check_audits({"mine": found}, {}, columns)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="asks for mood"):
        check_audits({"mine": Audit(lambda mood: iter(()))}, {}, columns)


def test_a_reading_that_is_not_of_the_rows_is_refused(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUDITS, "mine", Audit(lambda model: iter([("", {"rouge": np.zeros(2)})])))
    with pytest.raises(ValueError, match=r"reads 'rouge' as an array of shape \(2,\): it must be one number for each"):
        found(subject, "mine")


def test_readings_do_not_depend_on_the_batch_or_the_side_of_padding(
    learnt: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    left = copy.deepcopy(tokenizer)
    left.padding_side = "left"
    one = Reader(learnt, tokenizer, rows(), max_new_tokens=24, batch_size=1)
    all_of_them = Reader(learnt, left, rows(), max_new_tokens=24)
    for read in (lambda r: r.read(), lambda r: r.read_rest(0.5), lambda r: r.read_samples(3, 1.2, 0)):
        by_one, by_all = read(one), read(all_of_them)
        assert by_one.keys() == by_all.keys()
        for name in by_one:
            np.testing.assert_allclose(by_one[name], by_all[name], atol=1e-5)
