"""What a `--config` says, and what YAML makes of it."""

import re
from pathlib import Path

import pytest
from transformers import TrainingArguments

from dareu.data.parts import DataArguments
from dareu.options.parsing import OptionParser
from dareu.options.spunge import SpungeArguments


def parsed(config: Path, text: str, *words: str) -> DataArguments:
    config.write_text(text, encoding="utf-8")
    found: DataArguments = OptionParser((DataArguments,)).parse_args_and_config([*words, "--config", str(config)])[0]
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


@pytest.mark.parametrize(("written", "read"), [("010", 8), ("12:30", 750), ("1_0", 10)])
def test_numbers_of_the_data_that_yaml_reads_as_others_are_refused(config: Path, written: str, read: int) -> None:
    for options in (
        f"forget_owners: [7, ada, '{written}', {written}]",
        f"exclude_owners: {written}",
        f"part_column: year\npart_values: [{written}]",
    ):
        with pytest.raises(ValueError, match=f"names {written} in .* as the number {read}: put it in quotes"):
            parsed(config, options)
    config.write_text(f"split_column: year\nsplit_map: {{{written}: old}}")
    with pytest.raises(ValueError, match=f"split_map names {written} in .* as the number {read}"):
        OptionParser((SpungeArguments,)).parse_args_and_config([f"--config={config}"])
    found = parsed(config, f"forget_owners: [7, -1, ada, '{written}']\nnum_owners: 010\npart_column: a\npart_values: 7")
    assert found.forget_owners == ["7", "-1", "ada", written] and found.part_values == ["7"]


@pytest.mark.parametrize("nobody", ["~", "Null", "NULL", ""])
@pytest.mark.parametrize("option", ["forget_owners", "exclude_owners"])
def test_an_owner_called_null_is_refused_without_quotes(config: Path, option: str, nobody: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is {nobody or 'empty'} in .*quotes"):
        parsed(config, f"{option}: {nobody}\n")
    assert vars(parsed(config, f"{option}: null\n"))[option] is None, "as the config of a run has it"
    assert vars(parsed(config, f"{option}: 'Null'\n"))[option] == ["Null"]


@pytest.mark.parametrize("value", ["2024", "2024-01-01", "no", "1.5", "null"])
def test_a_path_that_yaml_reads_as_no_text_is_refused(config: Path, value: str) -> None:
    with pytest.raises(ValueError, match=r"dataset is .*, which is no text but of type .*quotes"):
        parsed(config, f"dataset: {value}")
    assert parsed(config, f"dataset: '{value}'").dataset == value
    assert parsed(config, "test_dataset: null").test_dataset is None


def test_an_option_stands_once(config: Path) -> None:
    for text in ("forget_owners: [Ada]\nnum_forget: 2\nforget_owners: [Bo]", "column_mapping: {owner: a, owner: b}"):
        with pytest.raises(ValueError, match=r"owners? twice: keep one"):
            parsed(config, text)


def test_a_config_may_follow_a_sign_and_must_be_a_file_of_utf_8(config: Path, tmp_path: Path) -> None:
    config.write_text("num_owners: 5")
    assert OptionParser((DataArguments,)).parse_args_and_config([f"--config={config}"])[0].num_owners == 5
    for words in (["--config"], ["--config", ""], ["--config="]):
        with pytest.raises(ValueError, match="--config names no file"):
            OptionParser((DataArguments,)).parse_args_and_config(words)
    config.write_bytes("forget_owners: [Zoé]".encode("latin-1"))
    with pytest.raises(ValueError, match=r"c\.yaml is not UTF-8, from byte 18 on"):
        OptionParser((DataArguments,)).parse_args_and_config(["--config", str(config)])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("--nun_forget 2", "There is no option nun_forget: the nearest is num_forget."),
        ("--num_gold=2", "There is no option num_gold here: --help lists those there are."),
        ("--prompt_template Q: {prompt}", "'{prompt}' belongs to no option: put a value of several words in quotes."),
    ],
)
def test_an_option_that_is_none_is_named_with_the_nearest_there_is(config: Path, wrong: str, says: str) -> None:
    config.write_text("num_owners: 5")
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        OptionParser((DataArguments,)).parse_args_and_config([*wrong.split(), "--config", str(config)])
    config.write_text("nun_forget: 2")
    with pytest.raises(ValueError, match=r"There is no option nun_forget: the nearest is num_forget\."):
        OptionParser((DataArguments,)).parse_args_and_config(["--config", str(config)])


def test_a_flag_of_transformers_may_be_true(config: Path, tmp_path: Path) -> None:
    config.write_text(f"fsdp: true\noutput_dir: {tmp_path}\nuse_cpu: true")
    assert OptionParser((TrainingArguments,)).parse_args_and_config(["--config", str(config)])[0].fsdp
