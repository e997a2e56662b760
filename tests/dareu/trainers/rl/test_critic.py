from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.masks import WeightMask, count_moved_outside, random_mask
from dareu.trainers import DareUConfig, DareUTrainer
from dareu.trainers.rl._critic import Critic
from dareu.weights import fingerprint

Build = Callable[..., DareUTrainer]


def length_reward(completions: list[str], **_: Any) -> list[float]:
    return [-1 - len(completion) / 100 for completion in completions]


@pytest.fixture
def build(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Build:
    def make(model: LlamaForCausalLM | None = None, **options: Any) -> DareUTrainer:
        keywords = {name: options.pop(name) for name in ("mask", "peft_config") if name in options}
        settings = {"advantage_estimator": "gae", "num_generations": 2, "num_iterations": 2, "kl_coef": 0.0}
        return DareUTrainer(
            model or tiny_llama(),
            length_reward,
            dareu_config(**(settings | options)),
            forget_rows,
            retain_dataset=retain_rows,
            processing_class=tokenizer,
            **keywords,
        )

    return make


def make_critic(model: LlamaForCausalLM, **options: Any) -> Critic:
    critic = Critic(model, **({"identity": "target", "learning_rate": 1e-2, "detach": True} | options))
    torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(0))
    return critic


def test_values_come_from_the_state_before_each_token(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama()
    critic = make_critic(model)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad(), critic.watch() as hidden:
        model(ids)
    values = critic.values(hidden, 3)
    for offset in range(3):
        with torch.no_grad():
            state = model.model(ids[:, : 3 + offset]).last_hidden_state[:, -1]
        torch.testing.assert_close(values[:, offset], critic.head(state).squeeze(-1), atol=1e-5, rtol=1e-5)


def test_values_do_not_depend_on_batch_size(build: Build) -> None:
    trainer = build(num_generations=4, per_device_train_batch_size=8)
    assert trainer.critic is not None
    torch.nn.init.normal_(trainer.critic.head.weight)
    trainer.model.train()
    rollout = trainer.rollout([dict(trainer.train_dataset[i // 4]) for i in range(8)])
    trainer.policy_logps(rollout)
    whole = rollout.values
    trainer.args.per_device_train_batch_size = 3
    trainer.policy_logps(rollout)
    mask = rollout.output["completion_mask"].bool()
    torch.testing.assert_close(rollout.values[mask], whole[mask], atol=1e-5, rtol=1e-5)


def test_only_a_watched_forward_is_seen(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    model = tiny_llama()
    critic = make_critic(model)
    with critic.watch() as hidden:
        model(torch.tensor([[1, 2, 3]]))
    model(torch.tensor([[1, 2, 3]]))
    assert len(hidden) == 1


def test_of_a_forward_that_is_made_twice_the_second_counts(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    """A model that does something of its own to its logits is run again."""
    model = tiny_llama()
    critic = make_critic(model)
    first, second = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3]])
    with critic.watch() as hidden:
        for ids in (first, first, second):
            model(input_ids=ids)
    assert len(hidden) == 2
    with critic.watch() as hidden:
        model(second)
    assert len(hidden) == 1


def test_a_model_without_a_decoder_is_refused() -> None:
    with pytest.raises(ValueError, match="no decoder to put a value head on"):
        make_critic(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_a_saved_critic_goes_on_with_the_same_bits(tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path) -> None:
    def update(critic: Critic, ids: list[int]) -> None:
        with critic.watch() as hidden:
            model(torch.tensor([ids]))
        (critic.values(hidden, 2) - 1.0).square().sum().backward()
        critic.step(Accelerator(cpu=True))

    model = tiny_llama()
    straight = make_critic(model)
    update(straight, [1, 2, 3, 4])
    straight.save(tmp_path)
    resumed = make_critic(model)
    resumed.load(tmp_path)
    for critic in (straight, resumed):
        update(critic, [5, 6, 7, 8])
    assert torch.equal(straight.head.weight, resumed.head.weight) and torch.equal(straight.head.bias, resumed.head.bias)


def test_a_critic_of_another_model_or_a_damaged_one_is_refused(
    tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> None:
    critic = make_critic(tiny_llama())
    with pytest.raises(ValueError, match="holds no value head"):
        critic.load(tmp_path)
    critic.save(tmp_path)
    with pytest.raises(ValueError, match="trained on another model"):
        make_critic(tiny_llama(), identity="another").load(tmp_path)
    with pytest.raises(ValueError, match="trained on another model"):
        make_critic(tiny_llama(hidden_size=16)).load(tmp_path)
    file = tmp_path / "critic.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match="no whole value head"):
        critic.load(tmp_path)


@pytest.mark.parametrize("rollout_policy", ["current", "original"])
@pytest.mark.parametrize("num_generations", [1, 2])
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_ppo_moves_the_selected_weights_and_its_critic_learns(
    build: Build,
    tiny_llama: Callable[..., LlamaForCausalLM],
    rollout_policy: str,
    num_generations: int,
    kl_coef: float,
) -> None:
    model = tiny_llama()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    mask = WeightMask(random_mask(model, 0.3, seed=0), 0.3, "random", fingerprint(model))
    trainer = build(
        model,
        mask=mask,
        rollout_policy=rollout_policy,
        num_generations=num_generations,
        per_device_train_batch_size=2,
        kl_coef=kl_coef,
        max_steps=24,
        learning_rate=1e-3,  # so that the critic can follow
        value_learning_rate=0.01,
    )
    trainer.train()
    assert count_moved_outside(before, model, mask) == 0
    assert any(not torch.equal(before[name], weight) for name, weight in model.named_parameters())
    losses = [entry["value_loss"] for entry in trainer.state.log_history if "value_loss" in entry]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    assert trainer.args.num_generations == num_generations
    assert not any("head.bias" in name for name in model.state_dict())


def test_a_detached_critic_leaves_the_gradient_alone(build: Build, tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    def trained(**options: Any) -> dict[str, torch.Tensor]:
        model = tiny_llama()
        trainer = build(model, max_steps=2, retain_loss="none", **options)
        assert trainer.critic is not None
        torch.nn.init.constant_(trainer.critic.head.weight, 0.1)
        trainer.train()
        return {name: weight.detach() for name, weight in model.named_parameters()}

    light, heavy = trained(vf_coef=0.1), trained(vf_coef=10.0)
    assert all(torch.equal(light[name], heavy[name]) for name in light)
    attached = trained(vf_coef=10.0, detach_value_head=False)
    assert any(not torch.equal(light[name], attached[name]) for name in light)


def test_accumulation_does_not_change_the_critic(build: Build) -> None:
    heads = []
    for accumulation, size in ((1, 4), (2, 2)):
        trainer = build(
            per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, num_iterations=1, max_steps=1
        )
        assert trainer.critic is not None
        trainer.train()
        heads.append(trainer.critic.optimizer.state[trainer.critic.head.weight]["exp_avg"])
    torch.testing.assert_close(heads[0], heads[1], atol=1e-7, rtol=1e-4)


def test_whitened_advantages_have_mean_0_and_deviation_1(build: Build) -> None:
    trainer = build(num_generations=4, per_device_train_batch_size=8, whiten_advantages=True)
    trainer.model.train()
    inputs = [dict(trainer.train_dataset[i // 4]) for i in range(8)]
    output = trainer._generate_and_score_completions(inputs)
    tokens = output["advantages"][output["completion_mask"].bool()]
    assert tokens.mean().abs() < 1e-5 and abs(tokens.std(correction=0) - 1) < 1e-4


def test_a_completion_without_a_reward_teaches_nobody(build: Build) -> None:
    trainer = build(num_generations=4)
    trainer.reward_funcs = [lambda completions, **_: [None, -1.0, 0.0, None]]
    trainer.model.train()
    output = trainer._generate_and_score_completions([dict(trainer.train_dataset[0]) for _ in range(4)])
    assert not output["advantages"][[0, 3]].any() and not output["value_mask"][[0, 3]].any()
    assert output["value_mask"][[1, 2]].any(1).all()


def test_ppo_trains_an_adapter(build: Build) -> None:
    trainer = build(peft_config=LoraConfig(r=2, target_modules="all-linear"), kl_coef=0.1)
    trainer.train()
    assert abs(trainer.state.log_history[0]["kl"]) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"advantage_estimator": "gea"}, "'gea' is no built-in name.*did you mean gae.*gae, group"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"lam": -0.1}, "lam is -0.1"),
        ({"vf_coef": 0.0}, "vf_coef"),
        ({"cliprange_value": 0.0}, "cliprange_value"),
        ({"value_learning_rate": 0.0}, "value_learning_rate"),
        ({"scale_rewards": "group"}, "whiten_advantages"),
        ({"fp16": True}, "fp16"),
        ({"per_device_train_batch_size": 1, "num_generations": 1}, "no generation batch of one completion"),
        ({"advantage_estimator": "group", "num_generations": 1}, "at least 2"),
        ({"num_generations": 3}, "divisible by num_generations"),
    ],
)
def test_bad_options_are_refused(
    dareu_config: Callable[..., DareUConfig], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dareu_config(**({"advantage_estimator": "gae"} | options))


def test_one_completion_a_prompt_is_the_default(dareu_config: Callable[..., DareUConfig]) -> None:
    assert dareu_config(advantage_estimator="gae", num_generations=None).num_generations == 1
    odd = dareu_config(advantage_estimator="gae", num_generations=None, per_device_train_batch_size=5)
    assert odd.generation_batch_size == 5
    assert (
        dareu_config(advantage_estimator="gae", num_generations=None, eval_strategy="steps").num_generations_eval == 1
    )
    assert dareu_config(num_generations=None, per_device_train_batch_size=8).num_generations == 8
