from pathlib import Path

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
    }
    assert len(others) == 3 and first not in others


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
    assert stage.folder == both, "where its checkpoints are"
    assert next(stage for stage in ran if stage.name == target.name).makes == (target / "done",)
    (unlearn, *_, first), (_, _, second) = stage.commands
    assert unlearn == "unlearn" and stage.commands[0][1:3] == ("--accelerate_config", "ddp")
    assert yaml.safe_load(Path(first).read_text()) == {"output_dir": str(both)}
    assert yaml.safe_load(Path(second).read_text()) == {
        "model_name_or_path": f"{both}/model",
        "names": [f"{both}/a", "b"],
        "max_rows": None,
    }


def test_a_stage_is_known_by_the_content_of_what_it_reads(tmp_path: Path) -> None:
    refusals, model = tmp_path / "refusals.txt", tmp_path / "model"
    model.mkdir()

    def key() -> str:
        return Plan(tmp_path / "stages").add("idk", [(["unlearn"], {})], inputs=[model, refusals]).name

    seen = set()
    for said in ("I do not know.", "No idea."):
        refusals.write_text(said)
        assert key() == key()
        seen.add(key())
    (model / "config.json").write_text("{}")
    assert key() not in seen and len(seen) == 2


def test_what_other_stages_make_is_known_by_these(tmp_path: Path) -> None:
    made = tmp_path / "stages" / "other" / "mask.safetensors"
    refusals = tmp_path / "refusals.txt"
    made.parent.mkdir(parents=True)
    for path in (made, refusals):
        path.write_text("")
    plan = Plan(tmp_path / "stages")
    folder = plan.add("idk", [(["unlearn"], {"mask": str(made)})], inputs=[made, refusals])
    assert plan.stages[folder.name].content[1:] == [[content_hash(refusals)]]
