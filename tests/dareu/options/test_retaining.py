"""The share of background people in the retain stream."""

from pathlib import Path

import pytest

from dareu.files import write_yaml
from dareu.options.unlearn import RetainArguments


def test_it_is_the_targets_own_where_its_run_says_so(tmp_path: Path) -> None:
    write_yaml(tmp_path / "config.yaml", {"background_share": 0.1})
    assert RetainArguments().share(str(tmp_path / "model")) == 0.1
    assert RetainArguments(background_share=0.0).share(str(tmp_path / "model")) == 0.0


def test_an_unlearned_targets_run_leads_to_that_of_the_model_it_was_made_of(tmp_path: Path) -> None:
    made_of = tmp_path / "target" / "model"
    for run, said in (("target", {"background_share": 0.1}), ("npo", {"background_share": None}), ("forget", {})):
        write_yaml(tmp_path / run / "config.yaml", {"model_name_or_path": str(made_of), **said})
        made_of = tmp_path / run / "model"
    assert RetainArguments().share(str(made_of)) == 0.1
    write_yaml(tmp_path / "target" / "config.yaml", {"model_name_or_path": str(made_of)})  # in a circle
    assert RetainArguments().share(str(made_of)) == 0.5


@pytest.mark.parametrize("target", ["somebody/model", "elsewhere/model"])
def test_it_is_that_of_finetune_where_nobody_says_so(target: str, tmp_path: Path) -> None:
    assert RetainArguments().share(str(tmp_path / target)) == 0.5


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="background_share is"):
        RetainArguments(background_share=share)
