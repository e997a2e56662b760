from pathlib import Path

import pytest

from dareu.comparison.entries import read_entries


def test_a_mask_that_no_entry_has_is_refused(configs: Path) -> None:
    entries = [{"method": "npo", "masks": ["dense", "few"]}, {"method": "npo", "name": "again"}]
    assert [entry.masks for entry in read_entries(entries, ["few"], configs)] == [["dense", "few"], ["dense"]]
    with pytest.raises(ValueError, match="No entry has the mask 'many' among its masks"):
        read_entries(entries, ["few", "many"], configs)
