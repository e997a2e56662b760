"""The shipped configs of accelerate are whole, shipped, and open with the command that uses them."""

import tomllib
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from dareu.cli import find_accelerate_configs

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = {"single": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED", "multi_machine": "FSDP"}


def test_all_are_found_and_shipped() -> None:
    assert find_accelerate_configs().keys() == KINDS.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "accelerate/*.yaml" in project["tool"]["setuptools"]["package-data"]["dareu.recipes"]


@pytest.mark.parametrize("name", KINDS)
def test_a_config_says_how_to_use_it_and_accelerate_reads_it(name: str) -> None:
    path = find_accelerate_configs()[name]
    text = path.read_text(encoding="utf-8")
    head = text.partition("compute_environment")[0]
    assert f"#   dareu unlearn --accelerate_config {name} " in head
    config = load_config_from_file(str(path))  # refuses unknown keys
    assert config.distributed_type.value == KINDS[name]
    assert config.mixed_precision == "no"
    settings = yaml.safe_load(text)
    if KINDS[name] == "FSDP":
        assert settings["fsdp_config"]["fsdp_version"] == 2
        assert settings["fsdp_config"]["fsdp_cpu_ram_efficient_loading"] is False


def test_several_machines_differ_from_one_only_in_the_machines() -> None:
    one, several = (
        yaml.safe_load(find_accelerate_configs()[name].read_text(encoding="utf-8"))
        for name in ("fsdp2", "multi_machine")
    )
    assert {key for key in several if one.get(key) != several[key]} == {
        *("num_machines", "num_processes", "machine_rank", "main_process_ip", "main_process_port"),
        *("rdzv_backend", "same_network"),
    }
