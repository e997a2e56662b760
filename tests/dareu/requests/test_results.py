"""What is made of a request's measurements: owners who come back, and doubts about the request itself."""

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from dareu.requests.ledger import Entry
from dareu.requests.results import Models, Placed, doubts, of_everybody


def placed(folder: Path, **recalls: list[float | None]) -> Placed:
    """A model whose measurement has rows of owners with these recalls of facts, and a retained row."""
    folder.mkdir()
    rows = [
        {"split": "forget", "owner": owner, "fact_recall": of} for owner, all_of in recalls.items() for of in all_of
    ]
    rows.append({"split": "retain", "owner": "zoe", "fact_recall": 1.0})
    (folder / "measurement.json").touch()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "measurement.parquet")
    return Placed("model", folder)


def test_whoever_is_still_told_of_or_comes_back_is_named(tmp_path: Path) -> None:
    target = placed(tmp_path / "target", cy=[0.9, 0.9], di=[0.8])
    now = placed(tmp_path / "now", cy=[0.2, 0.4, None], di=[0.7])
    before = placed(tmp_path / "before", ann=[0.25, 0.25], bo=[0.1])
    after = placed(tmp_path / "after", ann=[0.6, 0.0], bo=[0.15])
    roles = {"target": target, "unlearned": now}
    told = of_everybody(Models(tmp_path, roles, None), [])
    assert told.by_owner["cy"]["fact_recall"] == pytest.approx(0.3) and told.by_owner.keys() == {"cy", "di"}
    assert told.still == ["di is still told of: fact_recall is 0.70, and was 0.80."] and told.back == []
    # A control that tells of di as well clears the model; a slow return is one, seen from the first request on
    roles["retrained"] = placed(tmp_path / "retrained", cy=[0.1], di=[0.65])
    first = Entry(["ann"], "2026-01-01", "npo", {}, "0", "1", {}, {"ann": {"fact_recall": 0.1}})
    told = of_everybody(Models(tmp_path, roles, (before, after)), [first])
    assert told.still == []
    assert told.by_owner.keys() == {"ann", "bo", "cy", "di"}
    assert told.back == ["ann, forgotten earlier, comes back: fact_recall rose from 0.10 to 0.30."]


def test_a_target_that_knows_no_more_than_its_base_is_doubted() -> None:
    def measured(rouge: float) -> Any:
        return {"metrics": {"forget_rouge": rouge}}

    assert doubts({"target": measured(0.9), "base": measured(0.3)}) == []
    assert doubts({"target": measured(0.3)}) == []
    assert doubts({"target": measured(0.3), "base": {"metrics": {}}}) == []  # where no word was measured
    (doubt,) = doubts({"target": measured(0.33), "base": measured(0.3)})
    assert doubt.startswith("The model gives 0.33 of the words") and "prompt_template" in doubt
