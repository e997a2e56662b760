"""How many rows an update of a request takes."""

import pytest

from dareu.requests.planning import batch_options


@pytest.mark.parametrize("micro_batch", [64, 32, 16, 8])
@pytest.mark.parametrize("forget", [1, 2, 3, 5, 12, 18, 400])
def test_groups_are_whole_and_no_prompt_is_asked_twice_in_a_rollout(forget: int, micro_batch: int) -> None:
    of = batch_options(forget, micro_batch, rewarded=True)
    micro, pieces = of["per_device_train_batch_size"], of["gradient_accumulation_steps"]
    assert micro <= micro_batch and micro % of["num_generations"] == 0 and of["steps_per_generation"] % pieces == 0
    assert micro * of["steps_per_generation"] / of["num_generations"] <= forget
    assert micro * pieces == min(64, 8 * max(1, forget // 2))


@pytest.mark.parametrize(("forget", "rows"), [(1, 1), (7, 7), (32, 32), (400, 32)])
def test_a_loss_takes_no_more_rows_than_there_are(forget: int, rows: int) -> None:
    of = batch_options(forget, 8, rewarded=False)
    assert of["per_device_train_batch_size"] * of["gradient_accumulation_steps"] == rows
    assert of["per_device_train_batch_size"] <= 8 and "num_generations" not in of
