"""Two processes compute what one does: fixed completions, one launch over gloo for all of it."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SCRIPT = Path(__file__).with_name("cases.py")


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    two_processes: Callable[..., str],
) -> Path:
    """The folder of the cases, after two processes have gone through them."""
    folder = tmp_path_factory.mktemp("distributed")
    tiny_llama().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    two_processes(SCRIPT, folder)
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    return said


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """The cases, for one process."""
    cases = runpy.run_path(str(SCRIPT), run_name="cases")
    cases["SETTINGS"]["use_cpu"] = True
    return cases


def test_fixed_rollouts_have_the_same_advantages(folder: Path, alone: dict[str, Any]) -> None:
    """Each process holds half of every group."""
    expected = alone["advantages"](folder)
    assert expected.shape[0] == 8 and expected.abs().max() > 0.1
    assert torch.equal(load_file(folder / "advantages.safetensors")["group"], expected)


@pytest.mark.parametrize(
    ("name", "kind", "build", "options"),
    [
        ("ddp_dareu", "MULTI_CPU", "dareu", {"masked": True}),
        ("ddp_gae", "MULTI_CPU", "dareu", {"masked": False, "advantage_estimator": "gae"}),
        ("ddp_guided", "MULTI_CPU", "dareu", {"masked": True, "guided": True}),
        ("ddp_npo", "MULTI_CPU", "unlearn", {}),
        ("ddp_dpo", "MULTI_CPU", "unlearn", {"loss": "dpo", "refusals": "common"}),
        ("fsdp2_dareu", "FSDP", "dareu", {"masked": True, "kl_coef": 0.1}),
        ("fsdp2_gae", "FSDP", "dareu", {"masked": False, "advantage_estimator": "gae"}),
        ("fsdp2_guided", "FSDP", "dareu", {"masked": True, "guided": True}),
        ("fsdp2_npo", "FSDP", "unlearn", {}),
        ("fsdp2_undial", "FSDP", "unlearn", {"masked": True, "loss": "undial"}),
        ("fsdp2_lora", "FSDP", "unlearn", {"lora": True}),
    ],
)
def test_updates_match_those_of_one_process(
    folder: Path,
    said: dict[str, Any],
    alone: dict[str, Any],
    tiny_llama: Callable[..., LlamaForCausalLM],
    name: str,
    kind: str,
    build: str,
    options: dict[str, Any],
) -> None:
    assert said[name] == [kind, 2]
    trainer = alone[build](folder, **options)
    assert trainer.accelerator.num_processes == 1
    expected, logged = alone["trained"](trainer)
    found = load_file(folder / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    for weight in expected:
        atol = 1e-6 if options.get("masked") else 1e-5
        torch.testing.assert_close(found[weight], expected[weight], atol=atol, rtol=0, msg=weight)
    for key in ("loss", "grad_norm", "retain_kl"):
        assert said[f"{name}_logged"][key] == pytest.approx(logged[key], rel=1e-3, abs=1e-6), key
    assert abs(logged["retain_kl"]) < 1e-6 and abs(said[f"{name}_logged"]["retain_kl"]) < 1e-6
    start = tiny_llama().state_dict()
    if options.get("masked"):
        mask = alone["mask_of"](tiny_llama())
        for weight, selected in mask.items():
            assert torch.equal(found[weight][~selected], start[weight][~selected]), weight
    if kind == "FSDP":
        assert said[f"{name}_sharded"] == len(list(trainer.model.parameters()))
    elif not options.get("lora"):
        assert max(float((found[weight] - start[weight]).abs().max()) for weight in start) > 1e-3


@pytest.mark.parametrize(
    ("launch", "method", "kind"),
    [
        ("ddp", "rmu", "lora"),
        ("ddp", "scrub", "dense"),
        ("ddp", "task_vector", "masked"),
        ("fsdp2", "rmu", "masked"),
        ("fsdp2", "task_vector", "dense"),
    ],
)
def test_trainers_of_their_own_match_those_of_one_process(
    folder: Path, said: dict[str, Any], alone: dict[str, Any], launch: str, method: str, kind: str
) -> None:
    name = f"{launch}_{method}"
    assert said[name] == [{"ddp": "MULTI_CPU", "fsdp2": "FSDP"}[launch], 2]
    trainer = alone["own"](folder, method, kind)
    start = {weight: tensor.detach().clone() for weight, tensor in trainer.model.state_dict().items()}
    expected, found = alone["trained"](trainer)[0], load_file(folder / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    for weight in expected:
        torch.testing.assert_close(found[weight], expected[weight], atol=2e-5, rtol=0, msg=weight)
        if kind == "masked" and weight in trainer.mask:
            frozen = ~trainer.mask[weight]
            assert torch.equal(found[weight][frozen], start[weight][frozen]), weight
    assert max(float((found[weight] - start[weight]).abs().max()) for weight in start) > 1e-3


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_every_process_holds_the_rollouts_that_they_shared_the_making_of(said: dict[str, Any], kind: str) -> None:
    first, second = said[f"{kind}_original"]
    assert first == second
    assert [(row, len(completions)) for row, completions in first] == [(row, 4) for row in range(4)]
    made = [tuple(completion) for _, completions in first for completion in completions]
    assert len(set(made)) > 8  # each process made its own


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_processes_that_sample_none_generate_with_those_that_do(said: dict[str, Any], kind: str) -> None:
    """The first process has the gold and the uninformed completion of every group: it waits for nobody."""
    first, second = said[f"{kind}_sampled"]
    assert first[0] < second[0] and first[1:] == second[1:] == [2, 1]


def test_every_process_gets_the_word_of_the_original_that_the_main_one_kept(said: dict[str, Any], folder: Path) -> None:
    (first, found), (other, found_there) = said["stored"]
    assert first == pytest.approx(other, abs=1e-5) and found == found_there == first
    assert len(list((folder / "original").iterdir())) == 1


def test_a_model_sharded_by_hand_is_trained_like_a_whole_one(folder: Path, alone: dict[str, Any]) -> None:
    expected = alone["by_hand"](folder, shard=False)
    found = load_file(folder / "by_hand.safetensors")
    for weight in expected:
        torch.testing.assert_close(found[weight], expected[weight], atol=1e-5, rtol=0, msg=weight)


def test_a_sharded_model_answers_at_different_lengths(said: dict[str, Any]) -> None:
    assert said["generated"] == [5, 11]


def test_the_main_process_decides_when_to_stop(said: dict[str, Any]) -> None:
    assert said["stopped"] == [1, 1]


def test_what_the_main_process_evaluates_counts_for_all(said: dict[str, Any]) -> None:
    assert said["evaluated"] == [[1.0, 1.0], [1.0, 1.0]]


def test_a_silent_fallback_to_ddp_is_refused(said: dict[str, Any]) -> None:
    assert said["fallback"].startswith("FSDP was asked for, but accelerate runs MULTI_CPU here")


@pytest.mark.parametrize("state", ["full", "sharded"])
def test_a_masked_training_goes_on_from_a_checkpoint_of_fsdp2(said: dict[str, Any], state: str) -> None:
    found = said[state]
    assert found["kind"] == "FSDP" and found["same"] == [True, True] and found["step"] == 4
    assert ("optimizer.bin" if state == "full" else "optimizer_0") in found["files"]
    assert found["moved"] == 0 and found["changed"]


def test_fsdp1_is_refused(said: dict[str, Any]) -> None:
    assert "FSDP1 is not supported" in said["fsdp1"]
