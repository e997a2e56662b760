"""The ledger: what it holds, whose it is, and that nobody is forgotten twice or retained again."""

from pathlib import Path

import pytest

from dareu.files import write_json
from dareu.requests.ledger import (
    LEDGER,
    MARK,
    Entry,
    check_ledger,
    check_new,
    earlier_owners,
    find_ledger,
    mark_of,
    read_ledger,
    write_ledger,
)


def entry(owners: list[str], before: str, after: str) -> Entry:
    return Entry(owners, "2026-01-01T00:00:00+00:00", "dareu", {"seed": 0}, before, after, {"tow": 0.5}, {})


ENTRIES = [entry(["Ann"], "0", "1"), entry(["Bo", "Łucja"], "1", "2")]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_ledger(tmp_path / LEDGER, ENTRIES)
    assert read_ledger(tmp_path / LEDGER) == ENTRIES
    assert earlier_owners(ENTRIES) == ["Ann", "Bo", "Łucja"]
    assert mark_of(ENTRIES) == {"requests": 2, "owners": 3}
    (tmp_path / "empty").touch()
    assert read_ledger(tmp_path / "empty") == []
    assert len((tmp_path / LEDGER).read_text(encoding="utf-8").splitlines()) == 2


def test_a_name_may_hold_breaks_of_lines(tmp_path: Path) -> None:
    entries = [entry(["Ann\u2028Bo", "Cy\u0085", "Di\nRo"], "0", "1")]
    write_ledger(tmp_path / LEDGER, entries)
    assert read_ledger(tmp_path / LEDGER) == entries


def test_a_line_that_is_no_request_is_named(tmp_path: Path) -> None:
    write_ledger(tmp_path / LEDGER, ENTRIES)
    whole = (tmp_path / LEDGER).read_text(encoding="utf-8")
    for wrong in ('{"owners": []}\n', "[]\n", whole[:40]):
        (tmp_path / LEDGER).write_text(whole + wrong, encoding="utf-8")
        with pytest.raises(ValueError, match=r"Line 3 of .* is no request \("):
            read_ledger(tmp_path / LEDGER)


def test_a_ledger_of_another_model_or_with_gaps_is_refused(tmp_path: Path) -> None:
    path, model = Path(LEDGER), str(tmp_path)
    check_ledger(path, ENTRIES, "2", model)
    with pytest.raises(ValueError, match=r"does not belong to the model: .* fingerprint 2, and these have 1"):
        check_ledger(path, ENTRIES, "1", model)
    for entries in ([], [ENTRIES[0], entry(["Cy"], "7", "2")]):
        with pytest.raises(ValueError, match="lacks requests that were made of the model"):
            check_ledger(path, entries, "2", model)
    write_json(tmp_path / MARK, mark_of(ENTRIES))
    check_ledger(path, ENTRIES, "2", model)
    with pytest.raises(ValueError, match="lacks requests that were made of the model"):
        check_ledger(path, ENTRIES[1:], "2", model)


def test_nobody_is_forgotten_twice_unasked() -> None:
    check_new(ENTRIES, ["Cy"])
    with pytest.raises(ValueError, match="Bo was forgotten by request 2: leave that name out, or give --again"):
        check_new(ENTRIES, ["Cy", "Bo"])


def test_a_model_is_not_unlearned_again_without_its_ledger(tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    assert find_ledger(str(model), None) is None
    (model / MARK).write_text("{}")
    with pytest.raises(ValueError, match=r"was made by an earlier request, and there is no requests.jsonl beside it"):
        find_ledger(str(model), None)
    write_ledger(model.parent / LEDGER, ENTRIES)
    assert find_ledger(str(model), None) == model.parent / LEDGER
    assert find_ledger("a/hub-id", str(model.parent / LEDGER)) == model.parent / LEDGER
    with pytest.raises(ValueError, match=r"which is no file: name the requests.jsonl"):
        find_ledger(str(model), str(tmp_path / "gone.jsonl"))
