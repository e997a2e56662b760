"""How many rows an update of a request takes."""

from types import SimpleNamespace
from typing import Any

import pytest

from dareu.requests.planning import RequestPlan


def options(method: str, forget: int, micro_batch: int) -> dict[str, Any]:
    """What the training is told about its batches."""
    size = SimpleNamespace(way="all", micro_batch=micro_batch, context=None)
    data = SimpleNamespace()
    request: Any = SimpleNamespace(size=size, rows={"forget": forget}, completion_tokens=8, prompt_tokens=8, data=data)
    asked: Any = SimpleNamespace(
        method=method, model_name_or_path="m", base_model=None, seed=0, use_cpu=True, unlearn_kwargs={}
    )
    plan = RequestPlan.__new__(RequestPlan)
    plan._request, plan._asked, plan._made = request, asked, {}
    plan._paths = dict.fromkeys(("classifier", "validation_judge", "test_judge"), "judge")
    plan._data = lambda _: {}  # type: ignore[method-assign]
    return plan._unlearn_options(1e-3, 60)


@pytest.mark.parametrize("micro_batch", [64, 32, 16, 8])
@pytest.mark.parametrize("forget", [1, 2, 3, 5, 12, 18, 400])
def test_groups_are_whole_and_no_prompt_is_asked_twice_in_a_rollout(forget: int, micro_batch: int) -> None:
    of = options("dareu", forget, micro_batch)
    micro, pieces = of["per_device_train_batch_size"], of["gradient_accumulation_steps"]
    assert micro <= micro_batch and micro % of["num_generations"] == 0 and of["steps_per_generation"] % pieces == 0
    assert micro * of["steps_per_generation"] / of["num_generations"] <= forget
    assert micro * pieces == min(64, 8 * max(1, forget // 2))


@pytest.mark.parametrize(("forget", "rows"), [(1, 1), (7, 7), (32, 32), (400, 32)])
def test_a_loss_takes_no_more_rows_than_there_are(forget: int, rows: int) -> None:
    of = options("npo", forget, 8)
    assert of["per_device_train_batch_size"] * of["gradient_accumulation_steps"] == rows
    assert of["per_device_train_batch_size"] <= 8 and "num_generations" not in of
