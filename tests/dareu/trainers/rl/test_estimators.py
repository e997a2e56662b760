"""Estimators by name, what they are given, and what is refused of what they give."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.plugins import needed_parameters
from dareu.trainers import DareUConfig, DareUTrainer
from dareu.trainers.rl._scoring import TokenScores
from dareu.trainers.rl.estimators import ESTIMATORS, OFFERED, Estimate, Estimator, estimate, find_estimator

PAGE = Path(__file__).resolve().parents[4] / "docs" / "plug_in" / "estimator.md"
SCORES = TokenScores(
    rewards=torch.tensor([[-1.0, -2.0, 0.0], [-3.0, -4.0, -5.0], [-6.0, 0.0, 0.0], [-7.0, -8.0, 0.0]]),
    terminal=torch.tensor([0.5, 0.0, -0.5, 0.0]),
    scored=torch.tensor([True, True, True, False]),
    mask=torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool(),
    price=torch.zeros(4, 3),
)
VALUES = torch.full((4, 3), 0.25)


def ask(function: Callable[..., Any], **options: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What is made of a function's answer on `SCORES`, in one process."""
    settings = {"num_generations": 2, "return_mode": "sum", "scale_rewards": "none", "gamma": 1.0, "lam": 0.9}
    settings["causal_returns"] = False
    found = Estimator("mine", function, needed_parameters(function, OFFERED, {}, "It"), {})
    values = VALUES if found.has_critic else None
    accelerator = Accelerator(cpu=True)
    return estimate(found, SCORES, values, accelerator, **(settings | {"whiten_advantages": True} | options))


@pytest.fixture
def build(
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    dareu_config: Callable[..., DareUConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> Callable[..., DareUTrainer]:
    def letters(completions: list[str], **_: Any) -> list[float]:
        return [-float(sum(map(ord, text)) % 7) for text in completions]

    def make(**options: Any) -> DareUTrainer:
        return DareUTrainer(
            tiny_llama(),
            letters,
            dareu_config(**options),
            forget_rows,
            retain_dataset=retain_rows,
            processing_class=tokenizer,
            eval_dataset=forget_rows,
        )

    return make


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """`file(source)`: the source in a file, and the estimator `mine` in it by name."""

    def write(source: str) -> str:
        path = tmp_path / "estimators.py"
        path.write_text(source, encoding="utf-8")
        return f"{path}:mine"

    return write


def test_everything_that_is_offered_is_as_it_is_said_to_be() -> None:
    seen: dict[str, Any] = {}
    source = f"def mine({', '.join(OFFERED)}): return note(locals())"
    namespace = {"note": lambda given: (seen.update(given), Estimate(given["returns"], given["returns"]))[1]}
    exec(source, namespace)
    ask(namespace["mine"])
    assert seen.keys() == OFFERED.keys()
    for name, text in OFFERED.items():
        if "(N" in text:
            shape = (4, 3) if "(N, T)" in text else (4,)
            assert seen[name].shape == shape and str(seen[name].dtype) == f"torch.{text.split()[0]}", name
            if "0 on padding" in text:
                assert not seen[name][~SCORES.mask].any(), name
    # The rest of the rewards, and the sequence's
    assert seen["returns"].tolist() == [[-2.5, -1.5, 0.0], [-12.0, -9.0, -5.0], [-6.5, 0.0, 0.0], [-15.0, -8.0, 0.0]]
    assert (seen["num_generations"], seen["return_mode"], seen["lam"]) == (2, "sum", 0.9)


def test_what_nobody_scored_teaches_nothing_whatever_an_estimator_says() -> None:
    def mine(mask: Tensor) -> Tensor:
        return torch.where(mask, 1.0, torch.nan)

    tensors, logged = ask(mine)
    assert tensors["advantages"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert tensors.keys() == {"advantages"} and logged == {"frac_groups_without_spread": 0.5}  # one alone in its group
    assert ask(mine, num_generations=1)[1] == {}


def test_what_nobody_scored_has_no_part_in_the_deviation() -> None:
    """The third and fourth completions make a group, and nobody scored the fourth."""
    plain, _ = ask(lambda returns: returns)
    scaled, _ = ask(lambda returns: returns, scale_rewards="batch")
    counted = SCORES.mask & SCORES.scored[:, None]
    deviation = plain["advantages"][counted].std(correction=0)
    torch.testing.assert_close(scaled["advantages"], plain["advantages"] / (deviation + 1e-4))


def test_a_critic_is_told_how_well_it_does() -> None:
    tensors, logged = ask(lambda returns, values: Estimate(returns - values, returns))
    assert tensors.keys() == {"advantages", "old_values", "returns", "value_mask"}
    assert torch.equal(tensors["value_mask"], SCORES.mask & SCORES.scored[:, None])
    assert torch.equal(tensors["old_values"], 0.25 * SCORES.mask)
    assert logged["explained_variance"] == pytest.approx(0, abs=1e-6)  # a constant
    assert ask(lambda returns, values: (returns, returns + values))[1]["explained_variance"] < 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda returns: returns[:, 0],
            r"gives torch.float32 of shape \(4,\) as advantages: give floats of shape \(4, 3\)",
        ),
        (lambda mask: mask, r"gives torch.bool of shape \(4, 3\) as advantages"),
        (lambda returns: None, "gives None as advantages"),
        (lambda returns: returns / 0, "a NaN or infinite number among its advantages"),
        (lambda returns, values: (returns, values * torch.inf), "a NaN or infinite number among its returns"),
        (lambda returns, values: returns - values, "asks for values and gives Tensor: let it return an Estimate"),
        (lambda returns: Estimate(returns, returns), r"gives Estimate\(.* as advantages"),
    ],
)
def test_what_cannot_be_an_estimate_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)^The advantage estimator 'mine' .*{message}"):
        ask(function)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"advantage_estimator": "groups"}, r"'groups' is no built-in name.*\(did you mean group\?\)"),
        ({"advantage_estimator": "no_such_package:mine"}, "names a module that is not installed"),
        ({"source": "def mine(rewards): ..."}, "asks for rewards: there are returns, token_rewards"),
        ({"source": "def mine(returns, *, k=1): ...", "estimator_kwargs": {"j": 2}}, "no option j: its options are k"),
        ({"estimator_kwargs": {"gamma": 0.5}}, "'group' has no option gamma"),
        ({"advantage_estimator": "gae", "estimator_kwargs": {"gamma": 0.5}}, "'gae' has no option gamma"),
        ({"estimator_kwargs": "scale"}, "estimator_kwargs is 'scale': give a mapping"),
        ({"source": "def mine(values): ...", "scale_rewards": "batch"}, "scale_rewards belongs to groups"),
        ({"source": "def mine(values): ...", "vf_coef": 0.0}, "vf_coef is 0.0"),
        ({"source": "def mine(returns, lam): ...", "lam": 2.0}, "lam is 2.0"),
    ],
)
def test_estimators_that_cannot_be_are_refused_with_the_options(
    options: dict[str, Any],
    message: str,
    file: Callable[[str], str],
    dareu_config: Callable[..., DareUConfig],
) -> None:
    if "source" in options:
        options = {"advantage_estimator": file(options["source"])} | options
    with pytest.raises(ValueError, match=message) as error:
        dareu_config(**{name: value for name, value in options.items() if name != "source"})
    assert "\n" not in str(error.value)


def test_a_critic_is_made_for_those_who_ask_for_values_alone(
    file: Callable[[str], str], build: Callable[..., DareUTrainer]
) -> None:
    for name in ESTIMATORS:
        trainer = build(advantage_estimator=name)
        assert (trainer.critic is not None) == find_estimator(name, {}).has_critic == (name == "gae")
    mine = file("def mine(returns, values, *, push=1.0): return push * (returns - values), returns")
    trainer = build(
        advantage_estimator=mine, estimator_kwargs='{"push": 2.0}', num_generations=None, per_device_train_batch_size=2
    )
    assert trainer.args.num_generations == 1 and trainer.critic is not None
    trainer.train()
    assert trainer.critic.head.bias.item() != 0
    logged = trainer.state.log_history[0]
    assert "explained_variance" in logged and "value_loss" in logged and "frac_groups_without_spread" not in logged


def test_a_critic_beside_groups_is_told_of_their_spread(build: Callable[..., DareUTrainer]) -> None:
    trainer = build(advantage_estimator="gae", max_steps=1)
    trainer.train()
    assert 0 <= trainer.state.log_history[0]["frac_groups_without_spread"] <= 1


def test_evaluation_compares_within_groups_where_there_is_a_critic(
    build: Callable[..., DareUTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    call = Estimator.__call__
    monkeypatch.setattr(Estimator, "__call__", lambda self, offered: asked.append(self.name) or call(self, offered))
    trainer = build(advantage_estimator="gae", max_steps=1, per_device_eval_batch_size=4)
    trainer.train()
    found = trainer.evaluate()
    assert asked[0] == "gae" and set(asked[1:]) == {"group"} and "eval_frac_groups_without_spread" in found


def test_the_critic_costs_one_pass_over_a_rollout_and_none_in_the_loss(build: Callable[..., DareUTrainer]) -> None:
    passes = {}
    for name in ESTIMATORS:
        trainer = build(advantage_estimator=name, kl_coef=0.0, retain_loss="none", num_iterations=2)
        calls: list[bool] = []
        trainer.model.register_forward_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        monkey = trainer._generate_single_turn
        trainer._generate_single_turn = lambda *a, m=monkey, c=calls: (m(*a), c.clear())[0]  # not those of generating
        trainer.train()
        passes[name] = calls
    # With two updates a rollout, TRL asks for the log-probabilities of the samples in any case
    assert passes["group"] == passes["gae"] == [False, True, True]
    trainer = build(advantage_estimator="gae", kl_coef=0.0, retain_loss="none", max_steps=1)
    hooked: list[bool] = []
    trainer.model.register_forward_hook(lambda *_: hooked.append(torch.is_grad_enabled()))
    generate = trainer._generate_single_turn
    trainer._generate_single_turn = lambda *a: (generate(*a), hooked.clear())[0]
    trainer.train()
    assert hooked == [False, True]


def test_the_page_lists_what_is_offered() -> None:
    lines = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.M)
    names = [name for line in lines for name in re.findall(r"`(\w+)`", line)]
    assert names == list(OFFERED)


def test_the_pages_example_runs(build: Callable[..., DareUTrainer], tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n# leave_one_out.py\n(.*?)```", text, re.S)
    (spec, options) = re.findall(r"--advantage_estimator (\S+) --estimator_kwargs '(.*?)'", text)[0]
    (tmp_path / "leave_one_out.py").write_text(source, encoding="utf-8")
    trainer = build(
        advantage_estimator=str(tmp_path / spec), estimator_kwargs=json.loads(options), kl_coef=0.0, num_generations=2
    )
    assert trainer.critic is None
    trainer.model.train()
    rollout = trainer.rollout([dict(trainer.train_dataset[0])] * 2)
    found = trainer._advantages(rollout)["advantages"]
    first, second = rollout.scores.terminal.tolist()
    expected = max(-2.0, min(2.0, first - second))
    assert expected != 0 and found[:, 0].tolist() == pytest.approx([expected, -expected])
    trainer.train()
