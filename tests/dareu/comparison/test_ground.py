import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dareu.comparison.asked import JUDGES, ROLES
from dareu.comparison.ground import Ground
from dareu.data import fictional
from dareu.data.fictional import fictional_world
from dareu.data.parts import DataArguments
from dareu.runs.plans import OWN, Plan

MASKS = {"few": {"score": "random", "density": 0.1}}


def stage_of(name: str) -> str:
    """The stage in whose folder a path lies."""
    return Path(name).parent.name


def kinds(plan: Plan) -> list[str]:
    return [stage.kind for stage in plan.stages.values()]


def test_what_is_given_is_not_made(ground: Callable[..., Ground], plan: Plan, tmp_path: Path) -> None:
    given = {role: str(tmp_path / role) for role in ROLES}
    for role in JUDGES:
        Path(given[role]).mkdir()
    there = ground(given=given)
    assert {role: there.path_of(role) for role in ROLES} == given
    assert not plan.stages and not there.stages_of(*ROLES)


def test_each_is_made_after_what_it_reads_and_once(
    ground: Callable[..., Ground], plan: Plan, said: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    made = ground(masks=MASKS)
    mask = made.path_of("mask-few")
    assert mask == made.path_of("mask-few") and mask.endswith("/mask.safetensors")
    base, target, few = plan.stages.values()
    assert [base.kind, target.kind, few.kind] == ["base", "target", "mask-few"]
    assert (base.after, target.after, few.after) == ((), (base.name,), (target.name,))
    assert made.stages_of("base", "retrained", "mask-few") == [plan.folder / base.name, plan.folder / few.name]
    assert said(target.name)["model_name_or_path"] == made.path_of("base") == str(plan.folder / base.name / "model")
    assert said(few.name)["model_name_or_path"] == made.path_of("target")
    assert (said(few.name)["density"], said(few.name)["gamma"], said(few.name)["output_dir"]) == (0.1, "auto", OWN)
    assert not plan.folder.exists(), "nothing is written before all was looked at"


def test_models_and_masks_are_of_a_seed_and_the_base_is_not(
    ground: Callable[..., Ground], plan: Plan, said: Callable[..., dict[str, Any]]
) -> None:
    grounds = [ground(seed, masks=MASKS) for seed in (0, 1)]
    for role in ("target", "mask-few", "classifier"):
        stages = [stage_of(each.path_of(role)) for each in grounds]
        assert [said(stage)["seed"] for stage in stages] == [0, 1]
        assert [stage.startswith(f"{role}-seed{seed}-") for seed, stage in enumerate(stages)] == [True, True]
    for role in ("base", "validation_judge"):
        assert len({each.path_of(role) for each in grounds}) == 1
    assert kinds(plan).count("base") == kinds(plan).count("validation_judge") == 1


def test_all_are_of_a_seed_where_the_worlds_are_but_the_base(
    ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch, said: Callable[..., dict[str, Any]]
) -> None:
    small = functools.cache(functools.partial(fictional_world, num_background=1, num_holdout=0, num_test=1))
    monkeypatch.setattr(fictional, "fictional_world", small)
    other = ground(7, DataArguments(num_owners=4), vary_world=True)
    assert other.request.world_seed == 7
    assert said(stage_of(other.path_of("validation_judge")))["world_seed"] == 7
    assert stage_of(other.path_of("validation_judge")).startswith("validation_judge-seed7-")
    base = stage_of(other.path_of("base"))
    assert base.startswith("base-") and "seed" not in base
    assert said(base)["dataset"] == "fictional-background", "it has read none of the owners"


def test_only_control_and_masks_know_who_asks(
    ground: Callable[..., Ground], data: DataArguments, said: Callable[..., dict[str, Any]]
) -> None:
    one, two = (ground(0, dataclasses.replace(data, forget_owners=[name]), masks=MASKS) for name in ("Ann", "Ben"))
    for role in ("base", "target", *JUDGES):
        assert one.path_of(role) == two.path_of(role)
        assert "forget_owners" not in said(stage_of(one.path_of(role)))
    assert [said(stage_of(each.path_of("retrained")))["exclude_owners"] for each in (one, two)] == [["Ann"], ["Ben"]]
    assert [said(stage_of(each.path_of("mask-few")))["forget_owners"] for each in (one, two)] == [["Ann"], ["Ben"]]
    assert "exclude_owners" not in said(stage_of(one.path_of("target")))


def test_a_judge_stands_on_the_base_where_its_config_says_so(
    ground: Callable[..., Ground], said: Callable[..., dict[str, Any]]
) -> None:
    made = ground()
    stages = {role: said(stage_of(made.path_of(role))) for role in JUDGES}
    assert stages["classifier"]["classifier_kwargs"] == {"model": made.path_of("base"), "lora": False}
    assert stages["test_judge"]["classifier_kwargs"] == {"model": "some-encoder"}
    assert "classifier_kwargs" not in stages["validation_judge"] and "seed" not in stages["validation_judge"]


def test_layers_are_told_by_a_folder_or_by_what_the_base_is_made_with(
    ground: Callable[..., Ground], tmp_path: Path
) -> None:
    assert ground(given={"base": "hub/model"}).num_layers() is None
    made = ground()
    assert made.num_layers() is None
    made.path_of("target")
    assert made.num_layers() == 4
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 9}), encoding="utf-8")
    assert ground(given={"target": str(tmp_path)}).num_layers() == 9


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"density": [0.1, 0.2]}, "The mask 'few' has several densities"),
        ({"max_steps": "many"}, "^mask-few: max_steps is 'many': give a number.$"),
    ],
)
def test_a_mask_that_cannot_be_is_named(ground: Callable[..., Ground], masks: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ground(masks={"few": masks}).path_of("mask-few")


def test_a_missing_config_is_refused(ground: Callable[..., Ground], configs: Path) -> None:
    (configs / "test_judge.yaml").unlink()
    with pytest.raises(ValueError, match=r"There is no config .*test_judge.yaml: write it, or give"):
        ground().path_of("test_judge")


def test_data_that_cannot_be_compared_on_is_refused(
    ground: Callable[..., Ground], data: DataArguments, tmp_path: Path
) -> None:
    ground(0, dataclasses.replace(data, test_dataset=None), tune=2)
    ground(tune=2)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="some have one row each: leave tune out"):
        ground(tune=2)
    ground()
