import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers.processors import TemplateProcessing
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl.trainer.utils import RepeatSampler

from dareu.data.encoding import encode_prompt
from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.trainers import DareUConfig, DareUTrainer
from dareu.trainers.rl._rollouts import RESERVED, ROW, make_rollouts, rows_asked, share_of, stored_rollout
from dareu.weights import fingerprint


class LetterReward:
    """Dense: the more letters e a prefix has, the worse. Remembers what it was given."""

    __name__ = "letters"

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        return [scores[-1] for scores in self.at(prompts, completions, [[len(text)] for text in completions])]

    def at(self, prompts: Any, completions: Any, ends: Any, **columns: Any) -> list[list[float] | None]:
        self.columns = columns
        return [[-float(text[:end].count("e")) / 4 for end in row] for text, row in zip(completions, ends, strict=True)]


def length_reward(completions: list[str], **_: Any) -> list[float]:
    return [-len(completion) / 20 for completion in completions]


def make_mask(model: LlamaForCausalLM, density: float = 0.3) -> WeightMask:
    return WeightMask(random_mask(model, density, seed=0), density, "random", fingerprint(model))


Build = Callable[..., DareUTrainer]


@pytest.fixture
def build(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Build:
    def make(model: LlamaForCausalLM | None = None, reward: Any = None, **options: Any) -> DareUTrainer:
        names = ("mask", "peft_config", "validate", "eval_dataset", "processing_class", "rollout_func")
        keywords = {name: options.pop(name) for name in names if name in options}
        retain = options.pop("retain_dataset", retain_rows)
        train = options.pop("train_dataset", forget_rows)
        return DareUTrainer(
            model or tiny_llama(),
            LetterReward() if reward is None else reward,
            dareu_config(**options),
            train,
            retain_dataset=retain,
            **({"processing_class": tokenizer} | keywords),
        )

    return make


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("rollout_policy", ["current", "original"])
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_only_weights_inside_the_mask_move(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], rollout_policy: str, kl_coef: float
) -> None:
    model = tiny_llama()
    before, mask = weights(model), make_mask(model)
    trainer = build(
        model,
        mask=mask,
        rollout_policy=rollout_policy,
        kl_coef=kl_coef,
        max_steps=3,
        max_grad_norm=0.1,
        gradient_accumulation_steps=2,
        num_iterations=2,
    )
    trainer.train()
    assert count_moved_outside(before, model, mask) == 0
    moved = sum(int((before[name] != weight).sum()) for name, weight in model.named_parameters())
    # Embeddings of tokens that never came up have no gradient, and norms no weight decay.
    assert moved > 0.5 * mask.count


def test_every_weight_moves_without_a_mask(build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama()
    before = weights(model)
    build(model).train()
    for name, weight in model.named_parameters():
        assert not torch.equal(before[name], weight), name


def test_lora_moves_the_adapter_alone(build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    trainer = build(peft_config=LoraConfig(r=2, target_modules="all-linear"))
    before = weights(trainer.model)
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(before[name], weight)}
    assert moved and all("lora_" in name for name in moved)


def test_it_logs_what_there_is_to_watch(build: Build) -> None:
    trainer = build(validate=lambda model: {"forget_attribution": 0.4, "fluency_nll": 1.0}, validation_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    for name in (
        "reward",
        "rewards/letters/mean",
        "completions/mean_length",
        "entropy",
        "kl",
        "clip_ratio/region_mean",
        "retain_kl",
        "frac_groups_without_spread",
        "validation/forget_attribution",
    ):
        assert name in logged, name
    assert abs(logged["kl"]) < 1e-5 and abs(logged["retain_kl"]) < 1e-6  # before the first update


def test_rewards_see_the_columns_and_the_gold_completion(build: Build, forget_rows: Dataset) -> None:
    reward = LetterReward()
    build(reward=reward).train()
    assert set(reward.columns["owner"]) == {"Lucia Duval"}
    assert set(reward.columns["reference"]) <= {text.strip() for text in forget_rows["completion"]}


def test_columns_of_the_users_own_do_not_reach_names_that_mean_something_else(
    build: Build, forget_rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    reward, rows = LetterReward(), forget_rows
    taken = [*RESERVED, "image", "images", "environment", "environments", ROW]
    for name in (*taken, "tool_mask", "label", "töxt"):
        rows = rows.add_column(name, ["user's own"] * len(rows))
    build(reward=reward, train_dataset=rows, eval_dataset=rows, max_steps=1).train()
    assert all(repr(name) in caplog.text for name in taken)
    assert {name for name, values in reward.columns.items() if "user's own" in str(values)} == {
        "tool_mask",
        "label",
        "töxt",
    }


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"learning_rate": 0.0}, "no weight has moved"),
        ({"reward": lambda completions, **_: [0.0] * len(completions), "kl_coef": 0.0}, "no group ever had any spread"),
        ({"reward": lambda completions, **_: [0.5] * len(completions)}, "every completion had the same reward"),
        (
            {"reward": lambda completions, **_: [0.5] * len(completions), "advantage_estimator": "gae"},
            "every completion had the same reward",
        ),
        (
            {"max_completion_length": 1, "mask_truncated_completions": True},
            "every completion was cut off at max_completion_length",
        ),
        ({}, None),
    ],
)
def test_it_knows_when_nothing_can_have_been_learnt(build: Build, options: dict[str, Any], reason: str | None) -> None:
    options |= {"save_strategy": "steps", "save_steps": 1}
    trainer = build(**options)
    assert trainer.nothing_learnt() is None, "before it has trained"
    trainer.train()
    said = trainer.nothing_learnt()
    assert (said is None) if reason is None else (said is not None and reason in said)
    again = build(**options)  # which goes on from the last checkpoint, and has nothing left to do
    again.train(resume_from_checkpoint=True)
    assert again.nothing_learnt() == said


def test_evaluation_rewards_see_the_gold_completion_too(build: Build, forget_rows: Dataset) -> None:
    def referred(completions: list[str], reference: list[str], **_: Any) -> list[float]:
        return [float(len(text)) for text in reference]

    trainer = build(reward=referred, per_device_eval_batch_size=4, eval_dataset=forget_rows)
    assert "eval_reward" in trainer.evaluate()


def test_rollouts_are_sampled_without_dropout(build: Build) -> None:
    for size in (2, 64):
        trainer = build(rollout_batch_size=size, kl_coef=0.0)
        modes = []
        generate = trainer.model.generate
        trainer.model.generate = lambda *args, **options: (  # called in this turn
            modes.append(trainer.model.training) or generate(*args, **options)  # noqa: B023
        )
        trainer.train()
        assert modes and not any(modes) and trainer.model.training


def test_a_second_training_samples_anew(build: Build) -> None:
    trainer = build(num_iterations=4, max_steps=3, retain_loss="none", kl_coef=0.0)
    calls = []
    generate = trainer._generate_single_turn
    trainer._generate_single_turn = lambda *args: calls.append(1) or generate(*args)
    trainer.train()
    trainer.train()
    assert len(calls) == 2


@pytest.mark.parametrize(("rows", "processes"), [(3, 8), (1, 3), (10, 4), (8, 2)])
def test_processes_share_rows_evenly(rows: int, processes: int) -> None:
    shares = [share_of(range(rows), process, processes) for process in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert {row for share in shares for row in share} == set(range(rows))


def test_rollouts_of_the_original_model_are_made_once(build: Build) -> None:
    trainer = build(rollout_policy="original", max_steps=6, num_iterations=1)
    calls = []
    generate = trainer._generate_single_turn
    trainer._generate_single_turn = lambda *args: calls.append(len(args[0])) or generate(*args)
    trainer.train()
    assert calls == [8]  # two prompts of four completions, for six updates


def test_stored_rollouts_equal_those_made_on_the_way(build: Build) -> None:
    stored, current = build(rollout_policy="original", kl_coef=0.0), build(kl_coef=0.0, rollout_batch_size=4)
    stored.args.rollout_batch_size = 4  # one prompt a call
    stored.model.train()
    current.model.train()
    stored._stored = make_rollouts(stored)
    with torch.random.fork_rng():
        torch.manual_seed(stored.args.seed)
        for row in sorted(range(2), key=lambda row: len(str(stored.train_dataset[row]))):  # shortest first
            inputs = [dict(stored.train_dataset[row]) for _ in range(4)]
            fresh, kept = (trainer._generate_and_score_completions(inputs) for trainer in (current, stored))
            assert all(torch.equal(fresh[name], kept[name]) for name in ("prompt_ids", "completion_ids", "advantages"))
            logps = stored.policy_logps(stored_rollout(stored, stored._stored, inputs))
            torch.testing.assert_close(kept["old_per_token_logps"], logps, atol=1e-5, rtol=1e-5)


def test_rollouts_of_the_original_model_survive_training(build: Build) -> None:
    trainer = build(rollout_policy="original", max_steps=2)
    expected = make_rollouts(trainer)
    trainer.train()
    assert trainer._stored is not None
    for row, samples in expected.items():
        for left, right in zip(samples, trainer._stored[row], strict=True):
            assert torch.equal(left.completion_ids, right.completion_ids) and torch.equal(left.logps, right.logps)


def test_stored_rollouts_are_kept_by_content(build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    def generated(**options: Any) -> int:
        model = tiny_llama(seed=options.pop("model_seed", 0))
        trainer = build(model, rollout_policy="original", max_steps=1, **options)
        calls = []
        generate = trainer.model.generate
        trainer.model.generate = lambda *args, **keywords: calls.append(1) or generate(*args, **keywords)
        trainer.train()
        return len(calls)

    assert generated() == 1
    assert generated() == 0  # found in the same folder
    assert generated(learning_rate=0.5, num_slices=3) == 0  # nothing that decides what is said
    assert generated(temperature=0.7) == generated(seed=5) == generated(model_seed=1) == 1


def test_damaged_stored_rollouts_are_made_again(build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"rollout_policy": "original", "rollout_cache_dir": str(tmp_path / "shared"), "max_steps": 1}
    first = build(**options)
    first.train()
    (file,) = (tmp_path / "shared").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    build(**options).train()
    assert "no whole file of rollouts" in caplog.text and file.read_bytes() == whole


def test_completions_are_generated_in_batches_of_like_length(build: Build) -> None:
    trainer = build(rollout_batch_size=3, kl_coef=0.0)
    trainer.model.train()
    lengths: list[list[int]] = []
    generate = trainer.model.generate

    def watched(*args: Any, **keywords: Any) -> Any:
        lengths.append(keywords["attention_mask"].sum(1).tolist())
        return generate(*args, **keywords)

    trainer.model.generate = watched
    rows = [trainer.train_dataset[i % 2] for i in range(8)]
    output = trainer._generate_and_score_completions([dict(row) for row in rows])
    assert [len(batch) for batch in lengths] == [3, 3, 2]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat)
    prompts = trainer._tokenizer.batch_decode(output["prompt_ids"], skip_special_tokens=True)
    assert prompts == [row["prompt"] for row in rows]  # in the order asked for


@pytest.mark.parametrize("estimator", ["group", "gae"])
@pytest.mark.parametrize("where", ["reward", "generation", "replay"])
def test_a_rollout_that_fails_leaves_nothing_behind(build: Build, estimator: str, where: str) -> None:
    fails = True

    class Fragile(LetterReward):
        def at(self, *args: Any, **columns: Any) -> list[list[float] | None]:
            if fails:
                raise RuntimeError("no answer")
            return super().at(*args, **columns)

    def rollout(trainer: DareUTrainer, replayed: Any = None) -> Any:
        torch.manual_seed(0)
        trainer.model.train()
        rows = [dict(trainer.train_dataset[0]) for _ in range(4)]
        found = trainer.rollout(rows, replayed)
        return found, trainer.policy_logps(found)

    trainer = build(reward=[Fragile(), length_reward], kl_coef=0.0, advantage_estimator=estimator)
    fresh = build(reward=[LetterReward(), length_reward], kl_coef=0.0, advantage_estimator=estimator)
    generate = trainer.model.generate
    if where == "generation":
        trainer.model.generate = lambda *args, **options: 1 / 0
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        rollout(trainer, [[5, 6, 2]] * 4 if where == "replay" else None)
    assert trainer._rollout is None
    trainer.model.generate, fails = generate, False
    (found, logps), (expected, expected_logps) = rollout(trainer), rollout(fresh)
    assert trainer._rollout is None and torch.equal(logps, expected_logps)
    assert found.lengths == expected.lengths and found.slices == expected.slices
    assert all(torch.equal(one, other) for one, other in zip(found.scores, expected.scores, strict=True))


def test_evaluation_works_beside_stored_rollouts(build: Build, forget_rows: Dataset) -> None:
    trainer = build(rollout_policy="original", kl_coef=0.1, per_device_eval_batch_size=4)
    trainer.train()
    assert "eval_reward" in trainer.evaluate(forget_rows)


@pytest.mark.parametrize("rollout_policy", ["current", "original"])
def test_completions_that_were_all_cut_off_move_nothing(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], rollout_policy: str
) -> None:
    model = tiny_llama()
    before = weights(model)
    trainer = build(
        model,
        rollout_policy=rollout_policy,
        mask_truncated_completions=True,
        retain_loss="none",
        weight_decay=0.0,
        generation_kwargs={"suppress_tokens": [2]},  # no completion ends
    )
    trainer.train()
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())


def test_dropout_does_not_look_like_divergence(build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    trainer = build(tiny_llama(attention_dropout=0.5), learning_rate=0.0, kl_coef=0.1)
    trainer.train()
    assert abs(trainer.state.log_history[0]["kl"]) < 1e-6


def test_a_reward_that_applies_to_some_rows_only(build: Build) -> None:
    def sometimes(completions: list[str], **_: Any) -> list[float | None]:
        return [None, -1.0, 0.0, None]

    trainer = build(reward=sometimes, kl_coef=0.0)
    trainer.model.train()
    output = trainer._generate_and_score_completions([dict(trainer.train_dataset[0]) for _ in range(4)])
    assert output["advantages"][0].abs().max() == 0 and output["advantages"][3].abs().max() == 0
    assert output["advantages"][1, 0] == -0.5 and output["advantages"][2, 0] == 0.5


def test_sequence_and_dense_rewards_join_after_weighting(build: Build) -> None:
    trainer = build(
        reward=[LetterReward(), length_reward], reward_weights=[2.0, 0.5], kl_coef=0.0, causal_returns=False
    )
    trainer.model.train()
    rollout = trainer.rollout([dict(trainer.train_dataset[0]) for _ in range(4)])
    output, scores = rollout.output | trainer._advantages(rollout), rollout.scores
    texts = trainer._tokenizer.batch_decode(output["completion_ids"], skip_special_tokens=True)
    torch.testing.assert_close(scores.terminal, torch.tensor([-len(text) / 40 for text in texts]))
    last = output["completion_mask"].sum(1) - 1
    # At the last token the return is the running mean there plus the sequence reward.
    returns = scores.rewards[range(4), last] + scores.terminal
    for row in range(4):
        as_long = last >= last[row]  # earlier returns of longer ones are means over what remains to them
        expected = [
            scores.rewards[other, last[row] : last[other] + 1].mean() + scores.terminal[other]
            for other in range(4)
            if as_long[other]
        ]
        baseline = torch.stack(expected).mean()
        torch.testing.assert_close(output["advantages"][row, last[row]], returns[row] - baseline)


def test_accumulation_does_not_change_the_retain_gradient(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], retain_rows: Dataset
) -> None:
    norms = []
    for accumulation, size in ((1, 4), (2, 2)):
        trainer = build(
            reward=lambda completions, **_: [0.0] * len(completions),  # no policy gradient
            retain_loss="nll",
            kl_coef=0.0,
            num_generations=2,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            retain_batch_size=4 // accumulation,
            max_steps=1,
        )
        trainer.train()
        norms.append(trainer.state.log_history[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4) and norms[0] > 0


def test_it_stops_on_the_judge(build: Build) -> None:
    levels = iter([1.0, 0.9, 0.2, 0.1])  # before the first update, and after each
    trainer = build(
        validate=lambda model: {"forget_attribution": next(levels)},
        validation_steps=1,
        stop_forget_attribution=0.3,
        max_steps=10,
    )
    trainer.train()
    assert trainer.state.global_step == 2


def test_it_stops_when_fluency_breaks(build: Build) -> None:
    trainer = build(
        validate=lambda model: {"forget_attribution": 0.9, "fluency_nll": 5.0},
        validation_steps=1,
        stop_fluency_nll=3.0,
        max_steps=10,
    )
    trainer.train()
    assert trainer.state.global_step == 1


def test_a_frozen_nan_gradient_does_not_reach_the_selected_weights(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    ends = []
    for poison in (False, True):
        model = tiny_llama()
        mask = make_mask(model)
        weight = model.model.layers[0].mlp.up_proj.weight
        entry = tuple((~mask["model.layers.0.mlp.up_proj.weight"]).nonzero()[0].tolist())
        if poison:

            def spoil(gradient: torch.Tensor, entry: tuple[int, ...] = entry) -> torch.Tensor:
                gradient = gradient.clone()
                gradient[entry] = float("nan")
                return gradient

            weight.register_hook(spoil)
        trainer = build(model, mask=mask, max_grad_norm=0.1)
        trainer.train()
        assert torch.isfinite(torch.tensor(trainer.state.log_history[0]["grad_norm"]))
        ends.append(weights(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.1}, "beta must stay 0"),
        ({"return_mode": "median"}, "'mean' or 'sum'"),
        ({"rollout_policy": "old"}, "'current' or 'original'"),
        ({"num_slices": 0}, "num_slices"),
        ({"rollout_batch_size": 0}, "rollout_batch_size"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template"),
        ({"num_generations": 3}, "divisible by num_generations"),
        ({"rollout_policy": "original", "use_vllm": True}, "vllm_importance_sampling_correction=False"),
        ({"retain_loss": "mse"}, "kl, nll, none"),
        ({"max_completion_length": 250}, "Row 1: the prompt has .* the model takes 256"),
        ({"retain_dataset": None}, "retain_dataset"),
        ({"peft_config": LoraConfig(r=2, bias="all")}, "leave it at 'none'"),
        ({"peft_config": LoraConfig(r=2), "mask": "made"}, "exclude each other"),
        ({"mask": "foreign"}, "mask was made for other weights"),
        ({"kl_coef": float("inf")}, "kl_coef is inf"),
        ({"max_completion_length": None}, "max_completion_length is None"),
        ({"remove_unused_columns": True}, "remove_unused_columns must stay False"),
        ({"rollout_policy": "original", "rollout_func": print}, "rollout_func makes the completions"),
    ],
)
def test_bad_options_stop_before_training(
    build: Build, tiny_llama: Callable[..., LlamaForCausalLM], options: dict[str, Any], message: str
) -> None:
    model = tiny_llama()
    if "mask" in options:
        options = options | {"mask": make_mask(model if options["mask"] == "made" else tiny_llama(seed=1))}
    with pytest.raises(ValueError, match=message):
        build(model, **options)


def test_an_infinite_reward_stops_training(build: Build) -> None:
    trainer = build(reward=lambda completions, **_: [float("inf")] * len(completions))
    with pytest.raises(ValueError, match="NaN or infinite"):
        trainer.train()


def test_nothing_is_sampled_behind_an_end_token_that_a_tokenizer_appends(
    build: Build, tokenizer: PreTrainedTokenizerFast, forget_rows: Dataset
) -> None:
    appending = copy.deepcopy(tokenizer)
    appending.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert appending("Who?")["input_ids"][-1] == 2
    trainer = build(processing_class=appending, max_steps=1)
    trainer.model.train()
    output = trainer._generate_and_score_completions([dict(trainer.train_dataset[0]) for _ in range(4)])
    prompt = output["prompt_ids"][0][output["prompt_mask"][0].bool()].tolist()
    assert prompt == encode_prompt(appending, forget_rows[0]["prompt"]) and 2 not in prompt


def test_as_many_rows_are_retained_as_completions_are_learnt_from_unless_asked_otherwise(build: Build) -> None:
    stream = build(per_device_train_batch_size=8, num_generations=4)._retain
    assert stream is not None and stream.batch_size == 8
    stream = build(retain_batch_size=3)._retain
    assert stream is not None and stream.batch_size == 3


class Asked:
    """A reward that remembers who was asked."""

    def __init__(self) -> None:
        self.rows: set[str] = set()

    def reward(self, prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        self.rows |= set(prompts)
        return length_reward(completions)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_train_epochs": 1}, "1 of 5 forget rows are looked at in none of 2 updates"),
        ({"num_train_epochs": 1, "per_device_train_batch_size": 2, "steps_per_generation": 3}, "2 of 5 forget rows"),
        ({"max_steps": 2, "num_iterations": 2}, "3 of 5 forget rows are looked at in none of 2 updates"),
        ({"num_train_epochs": 3}, None),
    ],
)
def test_rows_that_no_update_asks_are_said_beforehand(
    build: Build, forget_rows: Dataset, options: dict[str, Any], words: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """TRL leaves out of an epoch what does not fill a generation batch."""
    rows = Dataset.from_list([{**forget_rows[0], "prompt": f"Where was {number}?"} for number in range(5)])
    asked = Asked()
    settings = {"max_steps": -1, "num_generations": 2, "steps_per_generation": 1, "learning_rate": 1e-5}
    trainer = build(reward=asked.reward, train_dataset=rows, **(settings | options))
    trainer.train()
    reached, number = trainer.rows_reached(trainer.state.max_steps)
    assert (reached, number) == (len(asked.rows), 5)
    said = [record.message for record in caplog.records if "forget rows" in record.message]
    assert (not said) if words is None else (words in said[0])


def test_rows_that_every_epoch_would_leave_out_are_refused(build: Build, forget_rows: Dataset) -> None:
    rows = Dataset.from_list([forget_rows[0]] * 3)
    options = {"num_generations": 2, "steps_per_generation": 1, "train_dataset": rows}
    with pytest.raises(ValueError, match="of the 3 forget rows the same 1 would be left out of every epoch"):
        build(shuffle_dataset=False, **options)
    assert build(**options).rows_reached(1) == (2, 3)


@pytest.mark.parametrize("updates", [1, 2, 3, 5, 9])
@pytest.mark.parametrize(("accumulated", "used"), [(1, 1), (1, 4), (2, 3), (4, 2)])
def test_the_rows_asked_are_those_of_the_samplers_epochs(updates: int, accumulated: int, used: int) -> None:
    def sampler() -> RepeatSampler:
        return RepeatSampler(range(7), mini_repeat_count=2, batch_size=2, repeat_count=used, shuffle=True, seed=3)

    expected: set[int] = set()
    through, done = sampler(), 0
    while done < updates:
        order = list(through)
        micro_batches = [order[i : i + 4] for i in range(0, len(order), 4)]
        for start in range(0, len(micro_batches), accumulated):
            if done < updates:
                expected |= {row for batch in micro_batches[start : start + accumulated] for row in batch}
                done += 1
    assert rows_asked(sampler(), updates=updates, accumulated=accumulated, used=used) == expected
