import json
from pathlib import Path

import pytest

from dareu.runs import StoredMeasurement, beside_control, common_numbers, read_measurement, write_measurement


def test_what_was_written_is_read(tmp_path: Path) -> None:
    measured: StoredMeasurement = {
        "key": "k",
        "metrics": {"forget_rouge": 0.5},
        "answers": {"forget": ["São"]},
        "prompts": {"forget": ["Who?"]},
        "rows": {"forget_rouge": [0.5, None]},
        "intervals": {"forget_rouge": [0.25, 0.75]},
        "left_out": {"attribution": "there is no judge: give one"},
        "vocabulary": "v",
    }
    write_measurement(tmp_path / "measurement.json", measured)
    assert read_measurement(tmp_path / "measurement.json") == measured


def test_what_was_written_before_there_were_intervals_is_read(tmp_path: Path) -> None:
    (tmp_path / "measurement.json").write_text('{"key": "k", "metrics": {"a": 0.5}, "rows": {"a": [0.5]}}', "utf-8")
    found = read_measurement(tmp_path / "measurement.json")
    assert found["metrics"] == {"a": 0.5} and found["intervals"] == found["left_out"] == {}
    assert found["vocabulary"] is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "does not exist: measure that model first"),
        ('{"metrics": {', "is no whole measurement"),
        ("[]", "is no measurement of `dareu measure`"),
        (json.dumps({"metrics": [1]}), "is no measurement of `dareu measure`"),
        (json.dumps({"metrics": {"tow": 1}}), "lacks the values of rows, for an older dareu wrote it: delete it"),
    ],
)
def test_what_is_none(text: str | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "measurement.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        read_measurement(path)


def test_values_of_rows_are_compared_with_the_control_s() -> None:
    def stored(rouge: float, nll: list[float | None], **more: float) -> StoredMeasurement:
        splits = ("forget", "retain", "test")
        metrics = {f"{split}_rouge": rouge for split in splits} | {"forget_base_nll": 1.0, **more}
        rows = {"forget_base_nll": nll}
        return {"key": "", "metrics": metrics, "answers": {}, "prompts": {}, "rows": rows, "vocabulary": None}

    mine, control = stored(0.5, [1.0, 9.0], name_kept=0.5), stored(0.75, [2.0] * 20, name_kept=1.0)
    of_five = (3 * 0.25**2 + 0.5**2 + 0.5**2) / 5
    assert beside_control(mine, control) == {
        "retraining_gap": of_five**0.5,
        "gibberish": 0.5,
        "tow": 0.75**3,
        "tow_star": 0.75**2,
    }
    common = common_numbers([mine, control, stored(0.5, [1.0])])
    assert common == {"forget_rouge", "retain_rouge", "test_rouge", "forget_base_nll"}
    of_four = (3 * 0.25**2 + 0.5**2) / 4
    assert beside_control(mine, control, common=common)["retraining_gap"] == pytest.approx(of_four**0.5)
    assert common_numbers([]) == frozenset()
    with pytest.raises(ValueError, match="The retrained control has another tokenizer than the model"):
        beside_control(mine | {"vocabulary": "a"}, control | {"vocabulary": "b"})
    beside_control(mine | {"vocabulary": "a"}, control)  # which was measured before it was kept


def test_a_control_of_other_rows_is_refused() -> None:
    def stored(*prompts: str) -> StoredMeasurement:
        metrics = {f"{split}_rouge": 0.5 for split in ("forget", "retain", "test")}
        asked = {"forget": list(prompts)} if prompts else {}
        return {"key": "", "metrics": metrics, "answers": {}, "prompts": asked, "rows": {}, "vocabulary": None}

    alike = {"retraining_gap": 0.0, "tow": 1.0, "tow_star": 1.0}
    assert beside_control(stored("a", "b"), stored("a", "b")) == alike
    assert beside_control(stored("a", "b"), stored()) == alike  # whose texts were taken out
    with pytest.raises(ValueError, match="was measured on other rows of 'forget' than the model"):
        beside_control(stored("a", "b"), stored("a"))
