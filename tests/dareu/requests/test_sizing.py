"""Which weights are trained, by the memory there is; and the learning rates that are tried."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from dareu.methods import METHODS
from dareu.requests._rates import rates_to_try
from dareu.requests.sizing import WAYS, Size, memory_of, size_of


@pytest.fixture
def size(tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM]) -> Callable[..., Size]:
    tiny_llama().save_pretrained(tmp_path / "model")

    def of(available: int, way: str = "auto", method: str = "dareu") -> Size:
        return size_of(
            str(tmp_path / "model"),
            METHODS[method],
            way=way,
            density=0.05,
            prompt_tokens=8,
            completion_tokens=8,
            num_judges=2,
            available=available,
        )

    return of


def test_the_most_thorough_way_that_fits_is_taken(size: Callable[..., Size]) -> None:
    roomy = size(10**12)
    assert (roomy.way, roomy.micro_batch, roomy.fits) == ("all", 64, True)
    assert "all weights takes" in roomy.reason and "no room" not in roomy.reason
    before, ways = roomy, ["all"]
    while (tighter := size(int(before.plan.total / 0.85) - 2)).fits:  # a little less than the last one needs
        assert tighter.plan.total < before.plan.total
        if tighter.way != ways[-1]:
            ways.append(tighter.way)
            assert f"there is no room for {WAYS['all']}" in tighter.reason
        else:
            assert tighter.micro_batch < before.micro_batch
        before = tighter
    assert len(ways) > 1 and ways == [way for way in WAYS if way in ways]
    assert "which may be too little" in tighter.reason


@pytest.mark.parametrize("way", WAYS)
def test_a_way_that_is_asked_for_is_kept_to(size: Callable[..., Size], way: str) -> None:
    found = size(10**12, way)
    assert found.way == way and "as was asked" in found.reason
    assert not size(1, way).fits and size(1, way).way == way


def test_a_machine_has_memory() -> None:
    assert 2**28 < memory_of(use_cpu=True) < 2**50


def test_rates_fall_with_the_size_and_lie_around_the_usual_one() -> None:
    for name in ("dareu", "npo"):
        small, large = (rates_to_try(METHODS[name], number, lora=False) for number in (10**6, 10**9))
        assert small == sorted(small) and len(set(small)) == 3
        assert all(few > many for few, many in zip(small, large, strict=True))
        assert rates_to_try(METHODS[name], 10**9, lora=True)[0] > large[-1]
