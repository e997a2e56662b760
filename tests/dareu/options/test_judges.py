from pathlib import Path

import pytest

from dareu.options.judges import check_judges


def test_three_judges_are_three(tmp_path: Path) -> None:
    check_judges(classifier="a", validation_judge="b", test_judge="c")
    check_judges(classifier="a", validation_judge=None, test_judge=None, reward_judge="")


@pytest.mark.parametrize("spelling", ["judges/test", "./judges/test", "judges/../judges/test/"])
def test_one_folder_in_two_jobs_is_refused_however_it_is_spelled(spelling: str) -> None:
    with pytest.raises(ValueError, match="named both as classifier and as test_judge"):
        check_judges(classifier="judges/test", validation_judge="other", test_judge=spelling)
