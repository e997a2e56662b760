from pathlib import Path

import pytest

from dareu.comparison.entries import read_entries


def test_a_mask_that_no_entry_has_is_refused(configs: Path) -> None:
    entries = [{"method": "npo", "masks": ["dense", "few"]}, {"method": "npo", "name": "again"}]
    assert [entry.masks for entry in read_entries(entries, ["few"], configs)] == [["dense", "few"], ["dense"]]
    with pytest.raises(ValueError, match="No entry has the mask 'many' among its masks"):
        read_entries(entries, ["few", "many"], configs)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"method": "npo", "masks": 3}, "has masks 3: give a list of names"),
        ({"method": "npo", "masks": []}, r"has masks \[\]: give a list of names"),
        ({"method": "npo", "masks": ["dense", "dense"]}, "give each once"),
        ({"method": "npo", "config": 3}, "has no config .*3: name a file of"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(entry: dict[str, object], message: str, configs: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_entries([entry], [], configs)
