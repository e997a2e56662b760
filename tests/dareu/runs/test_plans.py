from pathlib import Path

import pytest
import yaml

from dareu.files import content_hash
from dareu.runs import plans
from dareu.runs.plans import OWN, Plan


def test_a_stage_is_known_by_what_goes_in(tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    first = plan.add("first", [(["finetune"], {"output_dir": OWN, "seed": 0})], makes="done")
    assert plan.add("first", [(["finetune"], {"seed": 0, "output_dir": OWN})], makes="done") == first
    assert len(plan.stages) == 1
    others = {
        plan.add("first", [(["finetune"], {"output_dir": OWN, "seed": 1})]),
        plan.add("first", [(["unlearn"], {"output_dir": OWN, "seed": 0})]),
        plan.add("first", [(["finetune"], {"output_dir": OWN, "seed": 0})], first),
        Plan(tmp_path, content="other data").add("first", [(["finetune"], {"output_dir": OWN, "seed": 0})]),
    }
    assert len(others) == 4 and first not in others


def test_options_are_written_where_the_command_reads_them(tmp_path: Path, monkeypatch) -> None:
    ran = []
    monkeypatch.setattr(plans, "run_stages", lambda stages, folder, jobs: ran.extend(stages) or {})
    plan = Plan(tmp_path / "stages")
    target = plan.add("target", [(["finetune"], {"output_dir": OWN})], makes="done")
    measure = {"model_name_or_path": f"{OWN}/model", "names": [f"{OWN}/a", "b"], "max_rows": None}
    both = plan.add(
        "npo", [(["unlearn", "--accelerate_config", "ddp"], {"output_dir": OWN}), (["measure"], measure)], target
    )
    assert not (tmp_path / "stages").exists(), "nothing is written before all is known to be right"
    plan.run(jobs=1)

    stage = next(stage for stage in ran if stage.name == both.name)
    assert stage.after == (target.name,)
    assert next(stage for stage in ran if stage.name == target.name).makes == (target / "done",)
    (unlearn, *_, first), (_, _, second) = stage.commands
    assert unlearn == "unlearn" and stage.commands[0][1:3] == ("--accelerate_config", "ddp")
    assert yaml.safe_load(Path(first).read_text()) == {"output_dir": str(both)}
    assert yaml.safe_load(Path(second).read_text()) == {
        "model_name_or_path": f"{both}/model",
        "names": [f"{both}/a", "b"],
        "max_rows": None,
    }


@pytest.mark.parametrize("place", ["value", "key"])
@pytest.mark.parametrize("spelling", ["file", "module", "package"])
def test_a_stage_is_known_by_the_plugins_that_it_names(
    place: str, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / f"plugins_of_{place}_{spelling}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    file = package / "short.py"
    file.write_text("class Brevity: ...\n")
    origin = {"file": str(file), "module": f"{package.name}.short", "package": package.name}[spelling]

    def key() -> str:
        name = f"{origin}:Brevity"
        rewards = {name: 0.1} if place == "key" else {"0.1": [name]}
        return Plan(tmp_path / "stages").add("dareu", [(["unlearn"], {"rewards": rewards})]).name

    before = key()
    assert key() == before
    file.write_text("class Brevity: pass\n")
    assert key() != before


def test_a_text_with_a_colon_names_no_module(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "stages")
    for text in ("json: {prompt}", "http://example.org", "json:"):
        folder = plan.add("first", [(["finetune"], {"prompt_template": text})])
        assert plan.stages[folder.name].content[2:] == [], text


def test_a_stage_is_known_by_the_files_that_it_names_and_not_by_those_of_its_plan(tmp_path: Path) -> None:
    refusals = tmp_path / "refusals.txt"
    refusals.write_text("I do not know.")
    made = tmp_path / "stages" / "other" / "mask.safetensors"
    made.parent.mkdir(parents=True)
    made.write_text("")
    plan = Plan(tmp_path / "stages")
    folder = plan.add("idk", [(["unlearn"], {"refusals": str(refusals), "mask": str(made), str(refusals): None})])
    assert plan.stages[folder.name].content[2:] == [content_hash(refusals)]
