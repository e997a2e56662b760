import numpy as np
import pytest
import torch

from dareu.trainers.rl._advantages import (
    ReturnMode,
    clipped_value_loss,
    generalized_advantages,
    group_advantages,
    past_in_returns,
    running_mean,
    scale_advantages,
    slice_ends,
    token_returns,
)


def padded(lengths: list[int]) -> torch.Tensor:
    return torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]


def test_slices_end_where_the_paper_says() -> None:
    assert slice_ends(30, 15) == list(range(2, 31, 2))
    assert slice_ends(10, 4) == [3, 5, 8, 10]
    assert slice_ends(3, 15) == [1, 2, 3]
    assert slice_ends(7, 1) == [7]


def test_running_mean_is_the_mean_over_tokens_so_far() -> None:
    ends, scores = [3, 5, 8, 10], [-0.1, -0.4, -0.2, -1.0]
    per_token = [next(s for e, s in zip(ends, scores, strict=True) if token < e) for token in range(10)]
    expected = [sum(per_token[: t + 1]) / (t + 1) for t in range(10)]
    torch.testing.assert_close(running_mean(scores, ends), torch.tensor(expected))


@pytest.mark.parametrize("terminal", [0.0, -0.3])
def test_equal_scores_at_unequal_lengths_give_no_advantage_under_mean_returns(terminal: float) -> None:
    mask = padded([3, 6, 10, 14])
    returns = token_returns(torch.full(mask.shape, -0.5), torch.full((4,), terminal), mask, "mean")
    advantages = group_advantages(returns, mask, torch.ones(4, dtype=torch.bool), 4)
    torch.testing.assert_close(advantages, torch.zeros_like(advantages))


def test_summed_returns_make_short_answers_pay() -> None:
    mask = padded([3, 6, 10, 14])
    returns = token_returns(torch.full(mask.shape, -0.5), torch.zeros(4), mask, "sum")
    advantages = group_advantages(returns, mask, torch.ones(4, dtype=torch.bool), 4)
    torch.testing.assert_close(advantages[:, 0], torch.tensor([2.625, 1.125, -0.875, -2.875]))


def test_mean_return_averages_the_remaining_tokens() -> None:
    mask = padded([3, 2])
    rewards = torch.tensor([[-1.0, -2.0, -6.0], [-4.0, 0.0, 99.0]])
    returns = token_returns(rewards, torch.tensor([0.0, 1.0]), mask, "mean")
    torch.testing.assert_close(returns, torch.tensor([[-3.0, -4.0, -6.0], [-1.0, 1.0, 0.0]]))


def test_baseline_is_the_mean_of_those_that_are_as_long_and_were_scored() -> None:
    mask = padded([2, 2, 1, 2])
    returns = torch.tensor([[1.0, 4.0], [3.0, 6.0], [5.0, 0.0], [100.0, 100.0]])
    scored = torch.tensor([True, True, True, False])
    advantages = group_advantages(returns, mask, scored, 4)
    torch.testing.assert_close(advantages, torch.tensor([[-2.0, -1.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]))


def test_groups_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    returns, mask = torch.randn(6, 4), padded([4, 3, 2, 4, 1, 4])
    scored = torch.ones(6, dtype=torch.bool)
    together = group_advantages(returns * mask, mask, scored, 3)
    apart = [group_advantages((returns * mask)[i : i + 3], mask[i : i + 3], scored[:3], 3) for i in (0, 3)]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("scale_rewards", ["batch", "group"])
def test_scaled_advantages_have_unit_deviation_over_real_tokens(scale_rewards: str) -> None:
    torch.manual_seed(0)
    mask = padded([4, 3, 2, 4])
    advantages = torch.randn(4, 4) * 7 * mask
    scaled = scale_advantages(advantages, mask, scale_rewards, 2)
    inside = [scaled[mask]] if scale_rewards == "batch" else [scaled[i : i + 2][mask[i : i + 2]] for i in (0, 2)]
    for values in inside:
        torch.testing.assert_close(values.std(correction=0), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert scale_advantages(advantages, mask, "none", 2) is advantages


def reference_gae(
    rewards: np.ndarray, terminal: float, values: np.ndarray, gamma: float, lam: float, mode: str
) -> np.ndarray:
    """One completion, in numpy and float64, straight from the definitions."""
    length = len(rewards)
    weights = [gamma ** np.arange(length - t) for t in range(length)]
    advantages, after = np.zeros(length), 0.0
    for t in reversed(range(length)):
        reward, discount = rewards[t] + terminal * (t == length - 1), gamma
        if mode == "mean":
            reward, discount = (rewards[t] + terminal) / weights[t].sum(), 1 - 1 / weights[t].sum()
        following = values[t + 1] if t + 1 < length else 0.0
        after = reward + discount * following - values[t] + discount * lam * after
        advantages[t] = after
    return advantages


@pytest.mark.parametrize("mode", ["mean", "sum"])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.99, 0.0), (0.0, 1.0)])
def test_generalized_advantages_are_those_of_the_definition(mode: ReturnMode, gamma: float, lam: float) -> None:
    generator = np.random.default_rng(0)
    lengths = [1, 4, 7, 6]
    rewards, values = generator.normal(size=(2, 4, 7))
    terminal = generator.normal(size=4)
    mask = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    advantages, returns = generalized_advantages(
        torch.tensor(rewards), torch.tensor(terminal), torch.tensor(values), mask, gamma=gamma, lam=lam, mode=mode
    )
    for row, length in enumerate(lengths):
        expected = reference_gae(rewards[row, :length], terminal[row], values[row, :length], gamma, lam, mode)
        np.testing.assert_allclose(advantages[row, :length], expected, atol=1e-12)
        np.testing.assert_allclose(returns[row, :length], expected + values[row, :length], atol=1e-12)
    assert not advantages[~mask].any() and not returns[~mask].any()


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_without_a_critic_to_trust_they_are_the_token_returns(mode: ReturnMode) -> None:
    mask = torch.arange(6)[None] < torch.tensor([2, 6, 0])[:, None]
    rewards, terminal = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, -1.0, 0.0])
    advantages, returns = generalized_advantages(
        rewards, terminal, torch.zeros(3, 6), mask, gamma=1.0, lam=1.0, mode=mode
    )
    torch.testing.assert_close(advantages, token_returns(rewards, terminal, mask, mode))
    assert torch.equal(advantages, returns)


def test_the_value_loss_takes_the_worse_of_clipped_and_not() -> None:
    values, old = torch.tensor([1.0, 1.0, -1.0]), torch.tensor([0.0, 0.9, 0.0])
    returns = torch.tensor([1.0, 2.0, 0.0])
    # Clipped to 0.2, 1.0 and -0.2.
    expected = torch.tensor([0.5 * 0.8**2, 0.5 * 1.0**2, 0.5 * 1.0**2])
    torch.testing.assert_close(clipped_value_loss(values, old, returns, 0.2), expected)


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_returns_without_the_past_by_plain_arithmetic(mode: ReturnMode) -> None:
    ends, scores = [3, 5, 8, 10], [-0.1, -0.5, -0.2, -0.9]
    rewards, mask = torch.zeros(2, 12), torch.zeros(2, 12, dtype=torch.bool)
    rewards[0, :10], mask[0, :10] = running_mean(scores, ends), True
    rewards[1, :2], mask[1, :2] = running_mean([-0.4, -0.3], [1, 2]), True
    found = token_returns(rewards, torch.tensor([-0.5, 0.0]), mask, mode) - past_in_returns(rewards, mask, mode)
    slices = [-0.1] * 3 + [-0.5] * 2 + [-0.2] * 3 + [-0.9] * 2
    for t in range(10):  # only scores from t on count in the means from t on
        means = [sum(slices[t : u + 1]) / (u + 1) for u in range(t, 10)]
        expected = sum(means) / (len(means) if mode == "mean" else 1) - 0.5
        assert found[0, t].item() == pytest.approx(expected, abs=1e-5)
    assert not found[0, 10:].any() and not found[1, 2:].any()


def test_the_past_does_not_depend_on_what_comes_after() -> None:
    """It is a baseline: of two completions that part at token 4, the first four tokens' past is the same."""
    mask = torch.ones(2, 8, dtype=torch.bool)
    rewards = torch.stack([running_mean([-0.2, -0.9], [4, 8]), running_mean([-0.2, -0.1], [4, 8])])
    past = past_in_returns(rewards, mask, "sum")
    torch.testing.assert_close(past[0, :5], past[1, :5])
    assert past[0, 0] == 0.0 and not torch.allclose(past[0, 5:], past[1, 5:])


def test_a_value_loss_without_a_clip_is_half_the_square() -> None:
    values, old, returns = torch.tensor([0.0, 3.0]), torch.tensor([0.0, 0.0]), torch.tensor([-7.0, 1.0])
    torch.testing.assert_close(clipped_value_loss(values, old, returns, None), torch.tensor([24.5, 2.0]))
    torch.testing.assert_close(clipped_value_loss(values, old, returns, 0.2), torch.tensor([24.5, 2.0]))
