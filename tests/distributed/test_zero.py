"""Masked training of two processes under DeepSpeed's ZeRO is that of one process without it."""

import json
import runpy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed (dareu[deepspeed]) is not installed")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    two_processes: Callable[..., str],
) -> Path:
    """The folder of the cases, after two processes have gone through them."""
    folder = tmp_path_factory.mktemp("zero")
    tiny_llama().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    two_processes(HERE / "zero.py", folder, DS_ACCELERATOR="cpu")  # it compiles a part the first time
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    return said


@pytest.mark.parametrize(
    ("name", "build", "options"),
    [
        ("npo_2", "unlearn", {}),
        ("npo_3", "unlearn", {}),
        ("dareu_3", "dareu", {"kl_coef": 0.1}),
        ("bf16_3", "unlearn", {"bf16": True, "dtype": torch.bfloat16}),
    ],
)
def test_masked_updates_match_those_of_one_process(
    folder: Path,
    said: dict[str, Any],
    tiny_llama: Callable[..., LlamaForCausalLM],
    name: str,
    build: str,
    options: dict[str, Any],
) -> None:
    found, heard = load_file(folder / f"{name}.safetensors"), said[name]
    assert (heard["kind"], heard["processes"], heard["stage"]) == ("DEEPSPEED", 2, int(name[-1]))
    alone = runpy.run_path(str(HERE / "cases.py"), run_name="cases")
    alone["SETTINGS"]["use_cpu"] = True
    dtype = options.get("dtype", torch.float32)
    start, mask = tiny_llama().to(dtype).state_dict(), alone["mask_of"](tiny_llama())
    for weight, selected in mask.items():
        assert torch.equal(found[weight][~selected], start[weight][~selected]), weight
        if dtype == torch.float32:  # in bfloat16 the ones of a norm swallow what is added
            assert not selected.any() or not torch.equal(found[weight], start[weight]), weight
    assert not torch.equal(found["lm_head.weight"], start["lm_head.weight"])
    # Of the selected entries alone, and of the own part alone
    assert max(heard["moments"]) < 0.6 * sum(heard["moments"]) < 0.6 * 10 * mask.total
    if dtype == torch.bfloat16:  # the order of sums decides on roundings
        return
    expected, logged = alone["trained"](alone[build](folder, masked=True, max_grad_norm=0.1, **options))
    assert heard["logged"]["grad_norm"] > 0.1, "clipped"
    for key in ("loss", "grad_norm", "retain_kl"):
        assert heard["logged"][key] == pytest.approx(logged[key], rel=1e-3, abs=1e-6), key
    for weight in expected:
        torch.testing.assert_close(found[weight], expected[weight], atol=1e-6, rtol=0, msg=weight)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_masked_training_goes_on_from_a_checkpoint_of_zero(said: dict[str, Any], stage: int) -> None:
    assert said[f"resumed_{stage}"] == [True, True]
