"""Background people among retained rows."""

from collections import Counter

import pytest
from datasets import Dataset

from dareu.data import mix_background


def rows(owner: str, number: int) -> Dataset:
    return Dataset.from_list(
        [{"prompt": f"{owner} {i}?", "completion": f" {i}.", "owner": owner} for i in range(number)]
    )


@pytest.mark.parametrize(("share", "background"), [(0.1, 9), (0.5, 80), (0.8, 320)])
def test_background_rows_make_their_share(share: float, background: int) -> None:
    mixed = mix_background(rows("owner", 80), rows("nobody", 400), share, seed=0)
    owners = list(mixed["owner"])
    assert owners.count("nobody") == background and owners.count("owner") == 80


def test_background_rows_recur_where_there_are_too_few() -> None:
    prompts = list(mix_background(rows("owner", 80), rows("nobody", 100), 0.8, seed=0)["prompt"])
    counts = Counter(prompt for prompt in prompts if prompt.startswith("nobody"))
    assert counts.total() == 320 and set(counts.values()) == {3, 4} and len(prompts) == 400


def test_owners_rows_recur_where_the_share_is_small() -> None:
    mixed = mix_background(rows("owner", 10), rows("nobody", 20), 0.2, seed=0)
    assert list(mixed["owner"]).count("nobody") == 2  # enough of them
    owners = list(mix_background(rows("owner", 100), rows("nobody", 20), 0.05, seed=0)["owner"])
    assert owners.count("nobody") / len(owners) == pytest.approx(0.05, abs=0.01)


def test_the_draw_has_a_seed_of_its_own() -> None:
    first, again, other = (
        list(mix_background(rows("owner", 10), rows("nobody", 100), 0.5, seed)["prompt"]) for seed in (0, 0, 1)
    )
    assert first == again != other
