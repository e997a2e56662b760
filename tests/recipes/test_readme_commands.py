"""The commands of the README, word by word, on a world of four owners and a model of a few thousand weights."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from dareu.data.fictional import FictionalWorld
from dareu.models import new_llama, new_tokenizer
from dareu.runs import read_results

README = Path(__file__).resolve().parents[2] / "README.md"

# What makes them short: appended to a recipe's options.
SMOKE = {
    "forget": "--plan",  # test_forget carries requests out
    "unlearn": "--max_steps 1 --use_cpu --report_to none --save_strategy no --num_generations 2 "
    "--per_device_train_batch_size 2 --max_completion_length 8 --mask_truncated_completions false",
    "measure": "--max_new_tokens 4 --max_rows 4",
}


def commands() -> list[list[str]]:
    """The `dareu …` commands of the section on own data, without the one that installs."""
    section = README.read_text(encoding="utf-8").split("## Your own model and data")[1]
    blocks = [part.split("```")[0].replace("\\\n", " ") for part in section.split("```bash")[1:3]]
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("dareu ")]


def test_own_model_and_data_in_six_commands(
    recipe: Callable[..., str], world: FictionalWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = dict(zip(dict.fromkeys(world.owners["owner"]), ("alice", "bob", "carol", "dave"), strict=True))
    owners = [names[owner] for owner in world.owners["owner"]]
    rows = world.owners.remove_columns("owner").add_column("owner", owners)
    rows.to_json("data.jsonl")
    world.test.to_json("test.jsonl")
    tokenizer = new_tokenizer([*rows["prompt"], *rows["completion"]], 400)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for seed, folder in enumerate(("my/base", "my/target")):
        new_llama(tokenizer, seed=seed, max_position_embeddings=128, **shape).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    asked = commands()
    assert [words[0] for words in asked] == [
        "forget",
        "train_classifier",
        "attribute_weights",
        "unlearn",
        "train_classifier",
        "measure",
    ]
    printed = [recipe(name, *words, *shlex.split(SMOKE.get(name, ""))) for name, *words in asked]
    assert "To forget: alice, bob" in printed[0] and not Path("runs/forget").exists()

    (row,) = read_results("runs/dareu/results.json")
    assert row["method"] == "dareu" and row["mask"] == "wagle" and row["metrics"]["moved_outside_mask"] == 0
    assert {"forget_rouge", "fact_recall", "forget_attribution_heldout", "forget_base_nll"} <= set(row["metrics"])
