"""`dareu audit`: what is kept, what is made again, and what stands beside target and control."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dareu.audits import AUDITS, Audit, NotPossible
from dareu.models import load_model

MINE = "dareu_example_plugin:INSISTING"
QUICK = ["--audits", "aliases", "prefilled", "--max_new_tokens", 4]


@pytest.fixture
def models(
    tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> dict[str, Path]:
    """Three models in run folders of their own."""
    folders = {}
    for seed, name in enumerate(("target", "retrained", "dareu")):
        folders[name] = tmp_path / name / "model"
        tiny_llama(seed=seed).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture
def audit(recipe: Callable[..., str], data: list[str], models: dict[str, Path]) -> Callable[..., str]:
    def run(name: str, *words: Any) -> str:
        return recipe("audit", *data, "--model_name_or_path", models[name], *words)

    return run


def stored(models: dict[str, Path], name: str = "dareu") -> dict[str, Any]:
    return dict(json.loads((models[name].parent / "audit.json").read_text(encoding="utf-8")))


def test_target_control_and_model_side_by_side(audit: Callable[..., str], models: dict[str, Path]) -> None:
    quick = ["--audits", "aliases", "prefilled", "quantisation", "relearning", "--max_new_tokens", 4]
    quick += ["--audit_kwargs", json.dumps({"relearning": {"steps": [1]}})]
    for name in ("target", "retrained"):
        assert "robustness" not in audit(name, *quick)
    beside = [f"--{name}={models[name].parent / 'audit.json'}" for name in ("target", "retrained")]
    printed = audit("dareu", *quick, *beside)
    assert "relearning_robustness" in printed and "last name" in printed and "int4" in printed
    found = stored(models)
    assert list(found["audits"]) == ["unattacked", "aliases", "prefilled", "quantisation", "relearning"]
    assert found["left_out"] == {}
    rows = found["audits"]["quantisation"]["rows"]["int4"]
    assert rows.keys() == {"rouge", "fact_recall", "probability", "extraction_strength"}
    mean = sum(rows["probability"]) / len(rows["probability"])
    assert found["audits"]["quantisation"]["readings"]["int4"]["probability"] == pytest.approx(mean)


def test_leak_scores_are_printed(audit: Callable[..., str], models: dict[str, Path]) -> None:
    for name in models:
        audit(name, "--audits", "unattacked", "--max_new_tokens", 4)
    for name, value in (("target", 0.9), ("retrained", 0.1), ("dareu", 0.3)):
        path = models[name].parent / "audit.json"
        found = stored(models, name)
        found["audits"]["unattacked"]["readings"][""]["rouge"] = value
        path.write_text(json.dumps(found), encoding="utf-8")
    beside = [f"--{name}={models[name].parent / 'audit.json'}" for name in ("target", "retrained")]
    printed = audit("dareu", "--audits", "unattacked", "--max_new_tokens", 4, *beside)
    assert "0.300 (+0.25)" in printed and "0 as the retrained model" in printed


def test_what_was_made_is_kept_and_what_changed_is_made_again(
    audit: Callable[..., str], models: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    kept = "nothing has changed since it was made"
    with caplog.at_level("INFO"):
        audit("dareu", *QUICK)
        assert kept not in caplog.text
        first = stored(models)
        audit("dareu", *QUICK)
        assert caplog.text.count(kept) == 3 and stored(models) == first
        caplog.clear()
        changed = [*QUICK, "--audit_kwargs", json.dumps({"prefilled": {"shares": [0.3]}})]
        audit("dareu", *changed)
        assert caplog.text.count(kept) == 2 and list(stored(models)["audits"]["prefilled"]["readings"]) == ["30%"]
        caplog.clear()
        (models["dareu"].parent / "audit.json").write_text("{", encoding="utf-8")
        audit("dareu", *QUICK)
        assert "what was kept is damaged" in caplog.text and kept not in caplog.text
        caplog.clear()
        (models["retrained"] / "model.safetensors").replace(models["dareu"] / "model.safetensors")
        audit("dareu", *QUICK)
        assert kept not in caplog.text


def test_what_was_not_asked_for_again_is_kept_of_the_same_model_alone(
    audit: Callable[..., str], models: dict[str, Path]
) -> None:
    audit("dareu", *QUICK)
    audit("dareu", "--audits", "unattacked", "--max_new_tokens", 4)
    assert list(stored(models)["audits"]) == ["unattacked", "aliases", "prefilled"]
    (models["retrained"] / "model.safetensors").replace(models["dareu"] / "model.safetensors")
    audit("dareu", "--audits", "unattacked", "--max_new_tokens", 4)
    assert list(stored(models)["audits"]) == ["unattacked"]


@pytest.mark.usefixtures("plugins")
def test_one_s_own_audit_changes_nothing_of_the_others(
    audit: Callable[..., str], models: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("target", "retrained", "dareu"):
        audit(name, *QUICK)
    beside = [f"--{name}={models[name].parent / 'audit.json'}" for name in ("target", "retrained")]
    with caplog.at_level("INFO"):
        audit("dareu", "--audits", "aliases", MINE, "--max_new_tokens", 4, *beside)
    assert caplog.text.count("nothing has changed since it was made") == 2 and MINE in stored(models)["audits"]


def test_an_adapter_stands_beside_whole_models(
    audit: Callable[..., str], models: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapted = get_peft_model(load_model(str(models["target"])), LoraConfig(r=2, target_modules="all-linear"))
    adapted.peft_config["default"].base_model_name_or_path = str(models["target"])
    adapted.save_pretrained(models["dareu"])
    (models["dareu"] / "model.safetensors").unlink()
    for name in ("target", "retrained"):
        audit(name, *QUICK)
    beside = [f"--{name}={models[name].parent / 'audit.json'}" for name in ("target", "retrained")]
    assert "unattacked" in audit("dareu", *QUICK, *beside)
    (models["retrained"] / "model.safetensors").replace(models["target"] / "model.safetensors")  # another base
    with caplog.at_level("INFO"):
        audit("dareu", *QUICK)
    assert "nothing has changed" not in caplog.text


def test_a_broken_model_is_no_model_that_forgot(
    audit: Callable[..., str], models: dict[str, Path], refused: Callable[..., str], data: list[str]
) -> None:
    model = load_model(str(models["dareu"]))
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(models["dareu"])
    words = [*data, "--model_name_or_path", models["dareu"], "--max_new_tokens", 4]
    assert "the model gives no finite likelihood" in refused("audit", *words, output_dir=models["dareu"].parent)


@pytest.mark.usefixtures("plugins")
def test_an_audit_of_an_installed_package(audit: Callable[..., str], models: dict[str, Path]) -> None:
    options = json.dumps({MINE: {"times": 3}})
    audit("dareu", "--audits", MINE, "--audit_kwargs", options, "--max_new_tokens", 4, "--max_rows", 2)
    found = stored(models)["audits"][MINE]
    assert list(found["readings"]) == ["3 times"] and len(found["rows"]["3 times"]["rouge"]) == 2


def test_an_audit_that_the_rows_do_not_allow_is_left_out_or_refused(
    recipe: Callable[..., str],
    models: dict[str, Path],
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    records = tmp_path / "records.jsonl"
    lines = [{"prompt": f"Who is {n}?", "completion": f" {n} sings.", "owner": n} for n in ("Ann Bo", "Cy Du")]
    records.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    data = ["--dataset", str(records), "--test_dataset", str(records), "--num_forget", "1"]
    words = [*data, "--model_name_or_path", models["dareu"], "--max_new_tokens", 4]
    said = refused("audit", *words, "--audits", "aliases", output_dir=models["dareu"].parent)
    assert "The audit 'aliases' cannot be made, for the rows to forget have no column 'name'" in said
    named = ["--audits", "aliases", "templated_prompts", "--max_rows", 1, "--skip_impossible"]
    recipe("audit", *words, *named, "--output", tmp_path / "some.json")
    found = json.loads((tmp_path / "some.json").read_text(encoding="utf-8"))
    assert found["audits"].keys() >= {"templated_prompts"} and found["left_out"].keys() == {"aliases"}
    with pytest.raises(SystemExit, match=r"Left out, which --strict forbids: .*paraphrased_prompts"):
        recipe("audit", *words, "--strict", "--audit_kwargs", json.dumps({"pruning": {"sparsity": [0.5]}}))
    assert stored(models)["left_out"].keys() == {"aliases", "paraphrased_prompts"}


def test_what_is_no_longer_possible_is_not_kept_from_other_options(
    audit: Callable[..., str], models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    audit("dareu", "--audits", "few_shot", "--max_new_tokens", 4)

    def fails(retain: Any) -> Any:
        raise NotPossible("there is no room")
        yield

    monkeypatch.setitem(AUDITS, "few_shot", Audit(fails))
    kept = [name for name in AUDITS if name not in ("unattacked", "few_shot")]
    for name in kept:
        monkeypatch.delitem(AUDITS, name)
    audit("dareu", "--max_new_tokens", 5)
    found = stored(models)
    assert list(found["audits"]) == ["unattacked"] and found["left_out"] == {"few_shot": "there is no room"}


def test_models_that_were_audited_otherwise_are_not_compared(
    audit: Callable[..., str], models: dict[str, Path], refused: Callable[..., str], data: list[str]
) -> None:
    audit("retrained", *QUICK, "--seed", 1)
    words = [*data, "--model_name_or_path", models["dareu"], *QUICK]
    said = refused(
        "audit", *words, "--retrained", models["retrained"].parent / "audit.json", output_dir=models["dareu"].parent
    )
    assert "The retrained was audited by 'unattacked' with other rows or options" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--audits", "prunning"], "did you mean pruning"),
        (["--target", "x.json"], "give retrained too"),
        (["--retrained", "x.json"], "x.json does not exist: audit that model first"),
        (["--max_rows", 0], "max_rows is 0"),
        (["--seed", -1], "seed is -1"),
        (["--audit_kwargs", '{"pruning": {"depth": 1}}'], "has no option depth"),
        (["--audit_kwargs", '{"pruning": 1}'], "audit_kwargs has 1 for pruning"),
        (["--audits", "pruning", "--audit_kwargs", '{"aliases": {}}'], "There are options of 'aliases'"),
    ],
)
def test_bad_options_are_refused(
    words: list[Any], message: str, models: dict[str, Path], refused: Callable[..., str], data: list[str]
) -> None:
    words = [*data, "--model_name_or_path", models["dareu"], *words]
    assert message in refused("audit", *words, output_dir=models["dareu"].parent)
