from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dareu.comparison.entries import read_entries
from dareu.comparison.ground import Ground
from dareu.comparison.planning import Row, measures_of, plan_seed
from dareu.metrics import METRICS
from dareu.runs.plans import CONFIG, OWN, Plan
from dareu.trainers import UnlearnConfig

MASKS = {"few": {"score": "random", "density": 0.1}}


@pytest.fixture
def planned(ground: Callable[..., Ground], configs: Path) -> Callable[..., list[Row]]:
    """`planned(entry, seed, **asked)`: the rows of one entry."""

    def rows(entry: Any, seed: int = 0, **asked: Any) -> list[Row]:
        there = ground(seed, **asked)
        return plan_seed(there, read_entries([entry], asked.get("masks", {}), configs, trials=asked.get("tune", 0)))

    return rows


def test_a_row_each_model_mask_and_setting(planned: Callable[..., list[Row]], plan: Plan) -> None:
    rows = planned({"method": "npo", "masks": ["dense", "few"], "alpha": [1, 2], "beta": 3}, seed=5, masks=MASKS)
    assert [row[:4] for row in rows] == [
        ("target", None, 5, None),
        ("retrained", None, 5, None),
        ("npo alpha=1", None, 5, 0),
        ("npo alpha=2", None, 5, 1),
        ("npo alpha=1", "few", 5, 0),
        ("npo alpha=2", "few", 5, 1),
    ]
    assert [row.folder.name[:-9] for row in rows] == [
        "measure-target-seed5",
        "measure-retrained-seed5",
        "npo-dense-1-seed5",
        "npo-dense-2-seed5",
        "npo-few-1-seed5",
        "npo-few-2-seed5",
    ]
    assert rows[2].model == str(rows[2].folder / "model") and rows[0].model.startswith(str(plan.folder / "target-"))


def test_further_controls_are_rows_that_differ_in_the_draws_of_training_alone(
    planned: Callable[..., list[Row]], plan: Plan, said: Callable[..., dict[str, Any]]
) -> None:
    _, first, second, third, npo = planned("npo", seed=5, num_controls=3)
    assert [row.name for row in (first, second, third)] == ["retrained", "retrained 2", "retrained 3"]
    assert second.folder.name.startswith("measure-retrained-2-seed5-") and second.setting is None
    trained = [said(Path(row.model).parent) for row in (first, second, third)]
    assert [options.pop("seed") for options in trained] == [5, 1005, 2005]
    assert trained[0] == trained[1] == trained[2] and trained[0]["exclude_owners"] == ["Cem"]
    measured = [said(row.folder) | {"model_name_or_path": "-"} for row in (first, second)]
    assert measured[0] == measured[1]
    assert Path(second.model).parent.name in plan.stages[second.folder.name].after
    assert not any(stage.startswith("retrained") for stage in plan.stages[npo.folder.name].after)


def choose(configs: Path, *names: str) -> None:
    """Lets `measure.yaml` choose metrics."""
    path = configs / "measure.yaml"
    options = yaml.safe_load(path.read_text(encoding="utf-8")) | {"metrics": list(names)}
    path.write_text(yaml.safe_dump(options), encoding="utf-8")


def test_what_compares_with_the_control_is_left_to_the_end(
    ground: Callable[..., Ground], configs: Path, checked: Any
) -> None:
    choose(configs, "rouge", "tow")
    measures = measures_of(ground())
    assert [options["metrics"] for options in measures.options] == [["rouge"]]
    assert measures.metrics == {name: METRICS[name] for name in ("rouge", "tow")}
    assert [options["metrics"] for recipe, options in checked if recipe == "measure"] == [["rouge"]]


@pytest.mark.parametrize(
    ("names", "tune", "complaint"),
    [
        (["tow", "probability"], 0, "lacks rouge, which tow reads: add it"),
        (["retraining_gap", "rouge"], 0, "lacks probability, which retraining_gap reads: add it"),
        (["rouge", "probability"], 3, "lacks retraining_gap, attribution, fluency, variety, which tune reads: add it"),
        (["roug"], 0, "did you mean rouge"),
    ],
)
def test_metrics_that_leave_out_what_is_needed(
    names: list[str], tune: int, complaint: str, ground: Callable[..., Ground], configs: Path
) -> None:
    choose(configs, *names)
    with pytest.raises(ValueError, match=complaint):
        measures_of(ground(tune=tune))


def test_a_run_reads_what_the_ground_has(
    planned: Callable[..., list[Row]], plan: Plan, said: Callable[..., dict[str, Any]], data: Any
) -> None:
    row = planned({"method": "npo", "masks": "few", "learning_rate": 3e-4}, masks=MASKS)[-1]
    stage = {stage.kind: str(plan.folder / stage.name) for stage in plan.stages.values()}
    assert said(row.folder) == {
        "method": "npo",
        "dataset": data.dataset,
        "test_dataset": data.test_dataset,
        "num_forget": 1,
        "forget_owners": ["Cem"],
        "base_model": f"{stage['base']}/model",
        "model_name_or_path": f"{stage['target']}/model",
        "mask": f"{stage['mask-few']}/mask.safetensors",
        "validation_judge": f"{stage['validation_judge']}/classifier",
        "learning_rate": 3e-4,
        "seed": 0,
        "output_dir": OWN,
    }
    waits = {plan.stages[name].kind for name in plan.stages[row.folder.name].after}
    assert waits == {"base", "target", "mask-few", "classifier", "validation_judge", "test_judge"}
    measure = said(row.folder, 1)
    assert measure["model_name_or_path"] == f"{OWN}/model" and "output" not in measure
    assert measure["test_judge"] == f"{stage['test_judge']}/classifier"
    assert measure["reward_judge"] == f"{stage['classifier']}/classifier"


def test_trials_are_measured_on_halves_by_a_judge_each(
    planned: Callable[..., list[Row]], plan: Plan, said: Callable[..., dict[str, Any]]
) -> None:
    rows = planned({"method": "npo", "learning_rate": [1e-4, 1e-3]}, tune=2)
    assert [(row.name, row.setting) for row in rows[2:]] == [("npo", 0), ("npo", 1)]
    for row, first in ((rows[1], 0), (rows[-1], 1)):  # a control is measured only
        before, after = said(row.folder, first), said(row.folder, first + 1)
        assert (before["fold"], after["fold"]) == ("0/2", "1/2")
        assert before["output"] == f"{OWN}/validation/measurement.json" != after.get("output")
        assert "test_judge" in after and "validation_judge" not in after
        assert before["num_samples"] == 0 and "num_samples" not in after
        assert "validation_judge" in before and "test_judge" not in before


def test_launching_is_said_where_the_training_starts(
    planned: Callable[..., list[Row]],
    plan: Plan,
    checked: Any,
    said: Callable[..., dict[str, Any]],
    parsed: Callable[..., Any],
) -> None:
    row = planned("npo", launch_with="ddp")[-1]
    assert plan.stages[row.folder.name].commands[0][:3] == ("unlearn", "--accelerate_config", "ddp")
    checked.parsed["spunge"] = [parsed(split_column="group", split_map=None, min_part_rows=1)]
    row = planned({"method": "npo", "split_column": "group"}, launch_with="ddp")[-1]
    assert plan.stages[row.folder.name].commands[0][:2] == ("spunge", "--config")
    assert said(row.folder)["launch_with"] == "ddp"
    assert said(row.folder)["measure_parts"] is True and said(row.folder)["measure_config"] == f"{CONFIG}.1.yaml"
    row = planned({"method": "npo", "split_column": ["group", "owner"]}, tune=2)[-1]
    assert said(row.folder)["measure_parts"] is False and "measure_config" not in said(row.folder)


def test_a_split_that_cannot_be_is_refused(
    planned: Callable[..., list[Row]], checked: Any, parsed: Callable[..., Any]
) -> None:
    checked.parsed["spunge"] = [parsed(split_column="group", split_map=None, min_part_rows=2)]
    with pytest.raises(ValueError, match="The entry 'npo': Part '0' of column 'group' has 1 rows"):
        planned({"method": "npo", "split_column": "group"})


@dataclass
class ThirdLayer(UnlearnConfig):
    """Options of a method that needs a model of three layers."""

    def check_layers(self, num_layers: int) -> None:
        if num_layers < 3:
            raise ValueError("there is no third layer: take another model.")


def test_layers_beyond_the_model_are_refused_before_a_run(
    planned: Callable[..., list[Row]], checked: Any, parsed: Callable[..., Any]
) -> None:
    checked.parsed["unlearn"] = [parsed(), ThirdLayer(output_dir="out", use_cpu=True)]
    checked.parsed["finetune"] = [parsed(num_hidden_layers=3)]
    planned("npo")
    checked.parsed["finetune"] = [parsed(num_hidden_layers=2)]
    with pytest.raises(ValueError, match="The entry 'npo': there is no third layer: take another model"):
        planned("npo")
    planned("npo", given={"base": "hub/of-unknown-depth"})
    checked.parsed["unlearn"] = [parsed(), UnlearnConfig(output_dir="out", use_cpu=True)]
    planned("npo")


def test_each_run_is_checked(planned: Callable[..., list[Row]], checked: Any) -> None:
    entry = {"method": "npo", "masks": ["dense", "few"], "alpha": [1, 2]}
    planned(entry, 3, masks=MASKS, seeds=[3, 4])
    runs = [options for recipe, options in checked if recipe == "unlearn"]
    assert [(options["mask"] is None, options["alpha"]) for options in runs] == [
        (True, 1),
        (True, 2),
        (False, 1),
        (False, 2),
    ]
    planned(entry, 4, masks=MASKS, seeds=[3, 4])
    assert len([options for recipe, options in checked if recipe == "unlearn"]) == 2 * len(runs)
    with pytest.raises(ValueError, match=r"^The entry 'npo': max_steps is 'many': give a number.$"):
        planned({"method": "npo", "max_steps": "many"})
