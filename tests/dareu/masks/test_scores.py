"""A score of one's own: what it is given, what its scores are called, and what it may not return."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dareu.masks import RandomScores, find_score, score_weights, weight_masks

BATCH = {
    "input_ids": torch.tensor([[3, 4, 5]]),
    "attention_mask": torch.ones(1, 3),
    "labels": torch.tensor([[3, 4, 5]]),
}
SIDES = [BATCH], [BATCH, BATCH]

SCORES = """
import torch
from dareu.masks import RandomScores, Score, WeightScores

def size(parameters, gamma, forget_batches, retain_batches, *, power=1.0):
    batches = len(list(forget_batches)), len(list(retain_batches))
    found = {name: batches[0] * batches[1] * p.detach().abs() ** power for name, p in reversed(parameters.items())}
    return WeightScores(found, "any", gamma)

WHOLE = Score(size, shards=False)

def drawn(parameters, seed):
    return RandomScores({name: p.shape for name, p in parameters.items()}, seed)

def changed(change):
    def score(parameters):
        found = {name: p.detach().clone() for name, p in parameters.items()}
        return change(found, list(found)[1])
    return score

def with_value(found, name):
    found[name].view(-1)[-1] = float("nan")
    return found

listed = changed(lambda found, name: list(found))
foreign = changed(lambda found, name: found | {"model.mine": found[name]})
missing = changed(lambda found, name: {key: value for key, value in found.items() if key != name})
turned = changed(lambda found, name: found | {name: found[name].T})
whole = changed(lambda found, name: found | {name: found[name].int()})
numbers = changed(lambda found, name: found | {name: found[name].tolist()})
infinite = changed(with_value)
value = torch.ones(3)

def asks(parameters, hessian):
    return parameters
"""


@pytest.fixture(scope="module")
def llama(tiny_llama: Callable[..., nn.Module]) -> nn.Module:
    return tiny_llama(hidden_size=16, intermediate_size=24)


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    path = tmp_path / "scores.py"
    path.write_text(SCORES, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["size", "WHOLE"])
def test_a_score_of_ones_own_is_given_what_it_names(llama: nn.Module, scores: Path, name: str) -> None:
    chosen: dict[str, Any] = {"include": ["*.mlp", "*.self_attn"], "gamma": 0.5, "options": {"power": 2.0}}
    found = score_weights(llama, f"{scores}:{name}", *SIDES, **chosen)
    expected = {n: 2 * p.detach() ** 2 for n, p in llama.named_parameters() if "mlp" in n or "self_attn" in n}
    assert list(found) == list(expected), "in the model's order, in which equal scores are chosen"
    assert all(torch.equal(found[key], wanted) for key, wanted in expected.items())
    assert (found.score, found.gamma) == (name, 0.5)
    assert next(weight_masks(llama, found, [0.1])).score == name
    assert find_score(f"{scores}:{name}").shards == (name == "size")


def test_scores_that_are_made_as_they_are_read_stay_so(llama: nn.Module, scores: Path) -> None:
    found = score_weights(llama, f"{scores}:drawn")
    assert isinstance(found.scores, RandomScores), "a copy would hold all scores in memory"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("listed", "The score '.*:listed' returns list: return a mapping"),
        ("foreign", "scores 'model.mine', which is not among the parameters to score: leave it out"),
        ("missing", "gives parameter 'model.layers.0.self_attn.q_proj.weight' no scores"),
        ("turned", r"gives parameter 'model.layers.0.mlp.up_proj.weight' scores of shape \(16, 24\): give \(24, 16\)"),
        ("whole", "gives parameter 'model.layers.0.self_attn.q_proj.weight' scores of torch.int32: give a tensor"),
        ("numbers", "gives parameter 'model.layers.0.self_attn.q_proj.weight' scores of list: give a tensor of floats"),
        ("infinite", "gives parameter 'model.layers.0.self_attn.q_proj.weight' scores that are not all finite"),
        ("value", "The score '.*:value' is of type Tensor: name a function or a class"),
        ("asks", "The score '.*:asks' asks for hessian: there are model, parameters, .*, folder"),
        ("sizes", "names nothing that .*scores.py defines"),
    ],
)
def test_what_a_score_of_ones_own_cannot_do(llama: nn.Module, scores: Path, name: str, reason: str) -> None:
    include = ["*.mlp"] if name == "turned" else ["*.self_attn", "model.embed_tokens"]
    with pytest.raises(ValueError, match=reason) as refused:
        score_weights(llama, f"{scores}:{name}", *SIDES, include=include)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("wagel", {}, r"no built-in name.* \(did you mean wagle\?\).*pkg.mod:Name, or path/to/file.py:Name"),
        ("no_such_package:score", {}, "a module that is not installed"),
        ("no_such_file.py:score", {}, "a file that does not exist"),
        ("wagle", {"gamma": 1}, "The score 'wagle' has no option gamma: its options are none"),
        ("size", {"exponent": 2}, "has no option exponent: its options are power"),
    ],
)
def test_names_and_options_that_are_not_there(scores: Path, name: str, options: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        find_score(f"{scores}:{name}" if name == "size" else name, options)
