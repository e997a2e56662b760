import json
from pathlib import Path

import pytest

from dareu.runs import StoredMeasurement, read_measurement, write_measurement


def test_what_was_written_is_read(tmp_path: Path) -> None:
    measured: StoredMeasurement = {
        "key": "k",
        "metrics": {"forget_rouge": 0.5},
        "answers": {"forget": ["São"]},
        "prompts": {"forget": ["Who?"]},
    }
    write_measurement(tmp_path / "measurement.json", measured)
    assert read_measurement(tmp_path / "measurement.json") == measured


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "does not exist: measure that model first"),
        ('{"metrics": {', "is no whole measurement"),
        ("[]", "is no measurement of `dareu measure`"),
        (json.dumps({"metrics": [1]}), "is no measurement of `dareu measure`"),
    ],
)
def test_what_is_none(text: str | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "measurement.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        read_measurement(path)
