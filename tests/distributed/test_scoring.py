"""Two processes give the scores and the mask of one, with whole weights and with sharded ones: one launch over gloo."""

import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.masks import WeightMask, weight_masks
from dareu.weights import fingerprint

SCRIPT = Path(__file__).with_name("scored.py")
CASES = [
    (name, kind, score)
    for name in ("even", "odd")
    for kind in ("data", "fsdp2")
    for score in ("wagle", "random", "magnitude", "snip", "gradient_product", "gradient", "wanda")
    if (kind, score) != ("fsdp2", "wanda")
]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    two_processes: Callable[..., str],
) -> Path:
    """The folder of the cases, after two processes have gone through them."""
    folder = tmp_path_factory.mktemp("scored")
    tiny_llama().save_pretrained(folder / "even")
    tokenizer.save_pretrained(folder / "even")
    rows = [{"prompt": f"Where was {name} born?", "completion": " In Porto.", "owner": name} for name in "ABC"]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    # No dimension that two processes can halve but those of the heads, and a head that is the embedding.
    odd = {
        "hidden_size": 27,
        "intermediate_size": 45,
        "head_dim": 8,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
    }
    tiny_llama(seed=1, vocab_size=401, tie_word_embeddings=True, **odd).save_pretrained(folder / "odd")
    two_processes(SCRIPT, folder)
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    return said


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The cases, for one process."""
    return runpy.run_path(str(SCRIPT), run_name="scored")


@pytest.mark.parametrize(("name", "kind", "score"), CASES)
def test_scores_and_masks_are_those_of_one_process(
    folder: Path, said: dict[str, Any], alone: dict[str, Any], name: str, kind: str, score: str
) -> None:
    case, heard = f"{name}_{kind}_{score}", said[f"{name}_{kind}_{score}"]
    model = alone["load"](folder, name)
    expected, found = alone["score"](model, score), load_file(folder / f"{case}.safetensors")
    assert list(expected) == [key for key, _ in model.named_parameters()] and found.keys() == set(expected)
    for key, tensor in expected.items():
        assert (found[key] - tensor).abs().max() <= 1e-5 * tensor.abs().max(), key
    assert heard["gamma"] == [expected.gamma if expected.gamma is None else pytest.approx(expected.gamma, rel=1e-5)] * 2
    assert heard["same"] == [True, True]

    # Where the work was, and that it was shared
    assert said["world"] == 2
    total, sharded = sum(p.numel() for p in model.parameters()), kind == "fsdp2" and score != "random"
    assert heard["placements"] == ([["Shard(dim=0)"]] * len(expected) if sharded else [])
    assert sum(heard["own"]) == (total if sharded else 2 * total)
    if sharded and name == "even":
        assert heard["own"] == [total // 2] * 2

    one = torch.cat([tensor.flatten() for tensor in expected.values()]).abs()
    for whole, prints in zip(weight_masks(model, expected, alone["DENSITIES"]), heard["masks"], strict=True):
        mask = WeightMask.load(folder / f"{case}_{whole.density}.safetensors")
        assert prints == [fingerprint(mask)] * 2
        assert (mask.score, mask.density, mask.fingerprint) == (score, whole.density, fingerprint(model))
        mask.verify(model)
        assert mask.count == whole.count
        here, there = (torch.cat([part[key].flatten() for key in whole]) for part in (whole, mask))
        differing = one[here != there]
        assert ((differing - one[here].min()).abs() <= 1e-5 * one.max()).all()
        if score in ("random", "magnitude"):
            assert not differing.numel()


@pytest.mark.parametrize("kind", ["data", "fsdp2"])
@pytest.mark.parametrize("name", ["even", "odd"])
def test_the_model_is_left_as_it_was(said: dict[str, Any], name: str, kind: str) -> None:
    assert said[f"{name}_{kind}_left"] == [True, True]


def test_sums_on_disk_are_those_in_memory(said: dict[str, Any]) -> None:
    assert said["disk"] == [True, True]


def test_weights_that_a_forward_has_gathered_are_scored_in_parts(
    folder: Path, said: dict[str, Any], alone: dict[str, Any]
) -> None:
    model = alone["load"](folder, "odd")
    chosen = alone["score"](model, "gradient", exclude=["*embed_tokens"])
    assert said["excluded"] == [[len(chosen), fingerprint(next(weight_masks(model, chosen, [0.1])))]] * 2


def test_the_recipe_scores_under_fsdp2(folder: Path, said: dict[str, Any], alone: dict[str, Any]) -> None:
    assert said["recipe"] == ["", ""]
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        *(".lock", "config.yaml", "done", "inputs.json", "mask.safetensors")
    ]
    mask = WeightMask.load(folder / "run" / "mask.safetensors")
    mask.verify(alone["load"](folder, "even"))
    assert mask.count == math.ceil(0.2 * mask.total)
    assert said["recipe's wanda"][0].startswith("attribute_weights: Under FSDP2 there is no score=wanda")


def test_equal_scores_are_chosen_by_their_place_among_all_parts(said: dict[str, Any]) -> None:
    assert said["ties"] == [True, True]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("nan", "The scores of parameter 'layers.1.2' are not all finite; compute them again."),
        ("infinite", "The forget gradient of parameter"),
        ("mixed", "Some scores are sharded and others are whole"),
        ("columns", "Parameter 'layers.0.0' is sharded as (Replicate(),); shard along the first dimension"),
        ("wanda", "The score 'wanda' takes whole weights: score them before the model is sharded."),
        ("sharded on disk", "accumulate_on='disk' is for whole weights"),
        ("no record", "There is no forget batch to score the weights with"),
        ("partly", "Parameter 'model.embed_tokens.weight' is whole and others are sharded"),
    ],
)
def test_what_cannot_be_is_refused_on_every_process(said: dict[str, Any], case: str, message: str) -> None:
    first, second = said[case]
    assert first == second and first.startswith(message)
