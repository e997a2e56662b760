"""What is made of a request's measurements: owners who come back, and doubts about the request itself."""

from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from dareu.requests.results import Models, Placed, doubts, of_everybody


def placed(folder: Path, **recalls: list[float | None]) -> Placed:
    """A model whose measurement has rows of owners with these recalls of facts, and a retained row."""
    folder.mkdir()
    rows = [
        {"split": "forget", "owner": owner, "fact_recall": of} for owner, all_of in recalls.items() for of in all_of
    ]
    rows.append({"split": "retain", "owner": "zoe", "fact_recall": 1.0})
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "measurement.parquet")
    return Placed("model", folder)


def test_whoever_comes_back_is_named(tmp_path: Path) -> None:
    now = placed(tmp_path / "now", cy=[0.0, 0.5, None])
    before = placed(tmp_path / "before", ann=[0.2, 0.0], bo=[0.1])
    after = placed(tmp_path / "after", ann=[0.6, 0.0], bo=[0.1])
    found, back = of_everybody(Models({"unlearned": now}, (before, after)))
    assert found == {"ann": {"fact_recall": 0.3}, "bo": {"fact_recall": 0.1}, "cy": {"fact_recall": 0.25}}
    assert back == ["ann, forgotten earlier, comes back: fact_recall rose from 0.10 to 0.30."]
    assert of_everybody(Models({"unlearned": now}, None)) == ({"cy": {"fact_recall": 0.25}}, [])


def test_a_target_that_knows_no_more_than_its_base_is_doubted() -> None:
    def measured(rouge: float) -> Any:
        return {"metrics": {"forget_rouge": rouge}}

    assert doubts({"target": measured(0.9), "base": measured(0.3)}) == []
    assert doubts({"target": measured(0.3)}) == []
    (doubt,) = doubts({"target": measured(0.33), "base": measured(0.3)})
    assert doubt.startswith("The model gives 0.33 of the words") and "prompt_template" in doubt
