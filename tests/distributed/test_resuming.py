"""Two processes write one whole checkpoint together, and go on from it with the same bits."""

import json
from collections.abc import Callable
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SCRIPT = Path(__file__).with_name("resumed.py")


def test_two_processes_go_on_from_their_checkpoint(
    tmp_path: Path,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    two_processes: Callable[..., str],
) -> None:
    tiny_llama().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    two_processes(SCRIPT, tmp_path)
    said = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    steps = {"dareu": [10, 12, 3, 5, 8], "npo": [10, 12, 2, 4, 6, 8]}
    for case, found in said.items():
        assert found["kind"] == "MULTI_CPU" and found["processes"] == 2
        assert found["checkpoints"] == [f"checkpoint-{step}" for step in steps[case]]
        assert not any(found["wrong"])
        assert found["files"] == ["rng_state_0.pth", "rng_state_1.pth"]
        assert found["same"], case
