"""Guided groups: gold completions and answers of the uninformed model beside the sampled ones."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.data.encoding import encode_dataset
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.models import new_llama, new_tokenizer
from dareu.trainers import DareUConfig, DareUTrainer
from dareu.trainers.rl._guides import GuidedTokens, gold_weights
from dareu.trainers.rl._rollouts import stored_rollout
from dareu.weights import fingerprint

Build = Callable[..., DareUTrainer]
END = 2


def letters(completions: list[str], **_: Any) -> list[float]:
    return [-text.count("e") / 4 for text in completions]


class Letters:
    """Dense: the more letters e a prefix has, the worse."""

    __name__ = "letters"

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        return letters(completions)

    def at(self, prompts: Any, completions: Any, ends: Any, **columns: Any) -> list[list[float]]:
        return [[-text[:end].count("e") / 4 for end in row] for text, row in zip(completions, ends, strict=True)]


@pytest.fixture(scope="module")
def base(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, retain_rows: Dataset
) -> LlamaForCausalLM:
    """A model that knows the form of the answers, and none of the owners to forget."""
    model = tiny_llama(seed=7)
    records = encode_dataset(retain_rows, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        for record in records:
            ids = torch.tensor([[*record.prompt_ids, *record.completion_ids]])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture
def build(
    memorised: Callable[..., LlamaForCausalLM],
    base: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Build:
    def make(model: LlamaForCausalLM | None = None, **options: Any) -> DareUTrainer:
        keywords = {name: options.pop(name) for name in ("mask", "peft_config", "base_tokenizer") if name in options}
        keywords = {"base_model": options.pop("base_model", base)} | keywords
        config = {"max_completion_length": 40, "kl_coef": 0.0, "num_generations": 4, "per_device_train_batch_size": 8}
        return DareUTrainer(
            model or memorised(),
            options.pop("reward", None) or Letters(),
            dareu_config(**(config | options)),
            options.pop("train_dataset", forget_rows),
            retain_dataset=retain_rows,
            processing_class=tokenizer,
            **keywords,
        )

    return make


def rollout_of(trainer: DareUTrainer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A generation batch of all rows, once the guides are made."""
    from dareu.trainers.rl._guides import make_guides

    assert trainer._base is not None
    trainer._guides = make_guides(trainer, trainer._base)
    trainer.model.train()
    inputs = [dict(row) for row in trainer.train_dataset for _ in range(trainer.num_generations)]
    return trainer._generate_and_score_completions(inputs), inputs


def completion(output: dict[str, Any], row: int) -> list[int]:
    ids: list[int] = output["completion_ids"][row][output["completion_mask"][row].bool()].tolist()
    return ids


def test_a_group_has_the_gold_completion_an_uninformed_one_and_samples(
    build: Build, tokenizer: PreTrainedTokenizerFast, forget_rows: Dataset
) -> None:
    trainer = build()
    output, _ = rollout_of(trainer)
    golds = [record.completion_ids for record in encode_dataset(forget_rows, tokenizer)]
    for row, gold in enumerate(golds):
        first = 4 * row
        assert completion(output, first) == gold
        drawn = tokenizer.decode(completion(output, first + 1), skip_special_tokens=True)
        assert drawn.strip() and completion(output, first + 1)[-1] == END
        assert output["is_guided"][first : first + 4].tolist() == [True, True, False, False]
        assert output["is_gold"][first : first + 4].tolist() == [True, False, False, False]


@pytest.mark.parametrize(("golds", "uninformed"), [(0, 1), (1, 0), (2, 1)])
def test_either_kind_of_guide_does_without_the_other(build: Build, golds: int, uninformed: int) -> None:
    trainer = build(num_gold=golds, num_uninformed=uninformed, max_steps=2)
    output, _ = rollout_of(trainer)
    guided = [True] * (golds + uninformed)
    assert output["is_guided"][:4].tolist() == guided + [False] * (4 - len(guided))
    assert output["is_gold"][:4].tolist() == [place < golds for place in range(4)]
    trainer.train()


def test_only_the_sampled_ones_are_generated(build: Build) -> None:
    trainer = build(num_gold=1, num_uninformed=2)
    asked: list[int] = []
    generate = trainer.model.generate
    trainer.model.generate = lambda *args, **options: (
        asked.append(len(options["input_ids"])) or generate(*args, **options)
    )
    rollout_of(trainer)
    assert asked == [2]  # one of each of two groups


def test_advantages_of_a_guided_group_by_plain_arithmetic(build: Build) -> None:
    trainer = build(num_slices=1, causal_returns=False)
    output, inputs = rollout_of(trainer)
    for start in range(0, len(inputs), 4):
        rows = range(start, start + 4)
        texts = [trainer.processing_class.decode(completion(output, row), skip_special_tokens=True) for row in rows]
        scores = letters(texts)
        lengths = [len(completion(output, row)) for row in rows]
        for row, score, length in zip(rows, scores, lengths, strict=True):
            for place in range(length):  # one slice: every token of a completion earns its score
                others = [other for other, far in zip(scores, lengths, strict=True) if far > place]
                expected = score - sum(others) / len(others)
                assert output["advantages"][row, place].item() == pytest.approx(expected, abs=1e-6)


def test_a_gold_token_weighs_the_truncated_ratio_down_to_the_floor() -> None:
    tokens = GuidedTokens(
        is_guided=torch.tensor([True, True, False]),
        is_gold=torch.tensor([True, False, False]),
        original_logps=torch.tensor([[-1.0, -1.0, -1.0, 0.0], [0.0] * 4, [0.0] * 4]),
        floor=torch.tensor([[-3.0, -3.0, -3.0, -torch.inf], [0.0] * 4, [0.0] * 4]),
    )
    logps = torch.tensor([[-0.5, -2.0, -3.5, -9.0], [-5.0] * 4, [-5.0] * 4], requires_grad=True)
    weights = gold_weights(logps, tokens)
    expected = torch.tensor([[1.0, torch.e**-1, 0.0, torch.e**-9], [1.0] * 4, [1.0] * 4])
    torch.testing.assert_close(weights, expected)
    assert not weights.requires_grad
    expected = torch.tensor([[1.0, torch.e**-0.1, 0.0, torch.e**-0.9], [1.0] * 4, [1.0] * 4])
    torch.testing.assert_close(gold_weights(logps, tokens, beta=0.1), expected)
    expected = torch.tensor([[1.0, 1.0, 0.0, 1.0], [1.0] * 4, [1.0] * 4])
    assert torch.equal(gold_weights(logps, tokens, beta=0.0), expected), "the floor stays"


@pytest.mark.parametrize(("num_iterations", "gold_beta"), [(1, 1.0), (2, 1.0), (1, 0.3)])
def test_the_gradient_of_a_gold_token_is_its_weighted_advantage(
    build: Build, num_iterations: int, gold_beta: float
) -> None:
    """After the policy has moved: −w·A·∇log π on gold tokens, whatever the clip, with w = min(1, (π/π_N)^β)."""
    options = {"num_iterations": num_iterations, "gold_beta": gold_beta, "retain_loss": "none"}
    trainer = build(**options, base_tokenizer=other_tokenizer())
    trainer.num_uninformed = 0
    output, _ = rollout_of(trainer)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    gold = output["is_gold"]
    batch = {
        name: tensor[gold] if torch.is_tensor(tensor) and tensor.dim() and len(tensor) == len(gold) else tensor
        for name, tensor in output.items()
    }
    batch["advantages"] = torch.full_like(batch["advantages"], -0.7)
    trainer.current_gradient_accumulation_steps = 1
    mask = batch["completion_mask"]
    batch["num_items_in_batch"] = mask.sum()
    trainer.model.eval()
    trainer.model.zero_grad()
    before = {name: tensor.clone() for name, tensor in batch.items() if torch.is_tensor(tensor)}
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}
    assert all(torch.equal(before[name], batch[name]) for name in before)  # it may be used again

    trainer.model.zero_grad()
    logps = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], mask], 1),
        mask.shape[1],
    )[0]
    ratio = (logps.detach() - batch["original_logps"]).exp()
    assert (ratio[mask.bool()] < 0.8).any()  # where PPO's clip would have no gradient
    plain = -(ratio.clamp(max=1.0) ** gold_beta * -0.7 * logps * mask).sum() / mask.sum()
    plain.backward()
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-6, rtol=1e-4)


def test_a_push_that_would_never_end_is_refused(build: Build) -> None:
    build(gold_beta=0.0, num_gold=0, num_uninformed=1, base_tokenizer=other_tokenizer())
    with pytest.raises(ValueError, match="other tokens than the target, so that the push on gold tokens would never"):
        build(gold_beta=0.0, base_tokenizer=other_tokenizer())


def other_tokenizer() -> PreTrainedTokenizerFast:
    """One of another vocabulary."""
    tokenizer = new_tokenizer(["Where was she born? She was born in Porto, near Accra."], 300)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


@pytest.mark.parametrize("rollout_policy", ["current", "original"])
@pytest.mark.parametrize("estimator", ["group", "gae"])
@pytest.mark.parametrize("trains", ["all", "mask", "lora"])
def test_it_trains_with_every_estimator_and_kind_of_weights(
    build: Build, memorised: Callable[..., LlamaForCausalLM], estimator: str, trains: str, rollout_policy: str
) -> None:
    model = memorised()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    options: dict[str, Any] = {"kl_coef": 0.1}
    if trains == "mask":
        options["mask"] = WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model))
    if trains == "lora":
        options["peft_config"] = LoraConfig(r=2, target_modules="all-linear")
    trainer = build(
        model, advantage_estimator=estimator, num_iterations=2, rollout_policy=rollout_policy, max_steps=4, **options
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "gold_weight" in entry]
    assert 0 < logged[0]["gold_weight"] <= 1.0
    if trains == "mask":
        assert count_moved_outside(before, model, options["mask"]) == 0


def test_stored_rollouts_know_which_completions_were_given(build: Build) -> None:
    """Else a word that every sampled completion is cut off would never be said beside gold ones."""
    trainer = build(rollout_policy="original", max_steps=1)
    trainer.train()
    assert trainer._stored is not None
    inputs = [dict(row) for row in trainer.train_dataset for _ in range(4)]
    rollout = stored_rollout(trainer, trainer._stored, inputs)
    assert rollout.given == trainer.guided(inputs)
    assert [ids is None for ids in rollout.given] == [False, False, True, True] * 2


def test_without_guides_nothing_changes_and_it_is_said(
    build: Build, memorised: Callable[..., LlamaForCausalLM], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dareu")
    ends = []
    for options, reason in (
        ({"num_gold": 0, "num_uninformed": 0}, "they are to be sampled"),
        ({"base_model": None}, "there is no base model"),
    ):
        model = memorised()
        build(model, num_iterations=2, max_steps=4, **options).train()
        assert f"Groups are not guided: {reason}." in caplog.text
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_gold_answer_becomes_unlikely_where_plain_groups_have_no_spread(
    build: Build, memorised: Callable[..., LlamaForCausalLM], answers_nll: Callable[..., tuple[float, float]]
) -> None:
    """A reward that tells the gold answer alone: samples of a model that knows it by heart are all alike."""

    def known(completions: list[str], reference: list[str], **_: Any) -> list[float]:
        return [-float(text.strip() == gold) for text, gold in zip(completions, reference, strict=True)]

    moved = {}
    for guided in (False, True):
        model = memorised()
        before, _ = answers_nll(model)
        options = {} if guided else {"num_gold": 0, "num_uninformed": 0}
        build(
            model, reward=known, learning_rate=3e-3, weight_decay=0.0, max_steps=20, temperature=0.3, **options
        ).train()
        moved[guided] = answers_nll(model)[0] - before
    assert moved[True] > 0.5 > abs(moved[False]) + 0.3


def test_uninformed_answers_are_kept_by_content_and_equal_fresh_ones(
    build: Build, base: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    generate = base.generate
    monkeypatch.setattr(base, "generate", lambda *args, **options: drawn.append(1) or generate(*args, **options))
    fresh, _ = rollout_of(build(num_uninformed=2))
    assert drawn
    drawn.clear()
    kept, _ = rollout_of(build(num_uninformed=2))
    assert not drawn and torch.equal(fresh["completion_ids"], kept["completion_ids"])
    rollout_of(build(num_uninformed=2, temperature=0.7))
    assert not drawn, "the policy's temperature is not theirs"
    rollout_of(build(num_uninformed=2, uninformed_temperature=0.7))
    assert drawn


def test_the_log_shows_how_the_uninformed_model_speaks(
    build: Build, tokenizer: PreTrainedTokenizerFast, forget_rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        output, _ = rollout_of(build())
    said = tokenizer.decode(completion(output, 1), skip_special_tokens=True).strip()
    assert f"To {forget_rows[0]['prompt'].strip()!r} the uninformed model says {said!r}." in caplog.text


def test_uninformed_answers_have_a_temperature_of_their_own(build: Build) -> None:
    differ = {}
    for degrees in (1e-3, 1.0):
        output, _ = rollout_of(build(num_uninformed=2, uninformed_temperature=degrees))
        differ[degrees] = [completion(output, first + 1) != completion(output, first + 2) for first in (0, 4)]
    assert any(differ[1.0]) and not any(differ[1e-3])


def test_another_tokenizer_is_written_in_the_policys_tokens(
    build: Build, tokenizer: PreTrainedTokenizerFast, retain_rows: Dataset
) -> None:
    texts = [prompt + said for prompt, said in zip(retain_rows["prompt"], retain_rows["completion"], strict=True)]
    foreign = new_tokenizer(texts, 350)
    model = new_llama(
        foreign, seed=0, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        for record in encode_dataset(retain_rows, foreign):
            ids = torch.tensor([[*record.prompt_ids, *record.completion_ids]])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trainer = build(base_model=model, base_tokenizer=foreign)
    output, _ = rollout_of(trainer)
    text = tokenizer.decode(completion(output, 1), skip_special_tokens=True)
    assert "Sanna" in text or "Kofi" in text  # what that model knows, in words
    assert completion(output, 1)[-1] == END and trainer._guides is not None
    assert (trainer._guides.of_rows[0].floor == -torch.inf).all()  # its tokens are others


def test_a_model_that_never_ends_leaves_its_places_to_samples(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], caplog: pytest.LogCaptureFixture
) -> None:
    endless = tiny_llama(seed=3)
    barred = torch.zeros(endless.config.vocab_size)
    barred[END] = -torch.inf
    endless.lm_head.register_forward_hook(lambda module, inputs, output: output + barred)
    with caplog.at_level(logging.WARNING):
        output, _ = rollout_of(build(base_model=endless, max_completion_length=12))
    assert "has too few answers with a whole sentence within 12 tokens to 2 of 2 prompts" in caplog.text
    assert output["is_guided"].tolist() == output["is_gold"].tolist()


def test_a_gold_completion_that_is_too_long_is_left_out_and_said_once(
    build: Build, caplog: pytest.LogCaptureFixture, forget_rows: Dataset
) -> None:
    trainer = build(max_completion_length=5)
    with caplog.at_level(logging.WARNING):
        output, _ = rollout_of(trainer)
    assert not output["is_gold"].any()
    assert len([line for line in caplog.messages if "gold completions of 2 of 2 rows" in line]) == 1


def test_rollouts_ignore_what_the_checkpoint_asks_of_generation(
    build: Build, memorised: Callable[..., LlamaForCausalLM]
) -> None:
    outputs = []
    for settings in ({}, {"no_repeat_ngram_size": 1, "suppress_tokens": [5, 6, 7], "typical_p": 0.2, "min_p": 0.5}):
        model = memorised()
        model.generation_config.update(**settings)
        trainer = build(model, num_gold=0, num_uninformed=0)
        trainer.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            inputs = [dict(trainer.train_dataset[0]) for _ in range(4)]
            outputs.append(trainer._generate_and_score_completions(inputs)["completion_ids"])
        assert all(getattr(model.generation_config, name) == value for name, value in settings.items())
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_gold": 2, "num_uninformed": 2}, "leave at least one"),
        ({"num_gold": 3}, "leave at least one"),  # with one uninformed answer by default
        ({"num_gold": -1}, "numbers ≥ 0"),
        ({"gold_beta": -0.1}, "gold_beta is -0.1: give a number ≥ 0"),
        ({"gold_beta": float("nan")}, "gold_beta is nan: give a number ≥ 0"),
        ({"num_gold": 1, "base_model": None}, "need base_model"),
        ({"num_uninformed": 1, "base_model": None}, "need base_model"),
    ],
)
def test_what_cannot_be_is_refused(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_small_groups_are_not_guided_unless_asked(build: Build) -> None:
    small = {"num_generations": 2, "per_device_train_batch_size": 4}
    assert build(**small).num_gold == 0
    assert build(**small, num_gold=1, num_uninformed=0).num_gold == 1
    assert build(per_device_train_batch_size=2, advantage_estimator="gae", num_generations=1).num_uninformed == 0
    assert (build(num_generations=8).num_gold, build(num_generations=8).num_uninformed) == (2, 2)


def test_a_vocabulary_that_loses_the_texts_is_refused(build: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers.normalizers import Lowercase

    uncased = copy.deepcopy(tokenizer)
    uncased.backend_tokenizer.normalizer = Lowercase()
    with pytest.raises(ValueError, match="Row 0: the base model's vocabulary makes"):
        build(base_tokenizer=uncased)


def test_uninformed_answers_are_kept_where_the_option_says(build: Build, tmp_path: Path) -> None:
    trainer = build(rollout_cache_dir=str(tmp_path / "kept"))
    rollout_of(trainer)
    assert len(list((tmp_path / "kept").iterdir())) == 1
