import pytest

from dareu.comparison._tuning import Judged, best_setting, draw_trials, settings_grid


def test_lists_make_a_grid_in_their_order() -> None:
    grid = settings_grid({"learning_rate": [1e-4, 1e-3], "loss_kwargs": {"beta": 0.1}, "max_steps": [5, 10]})
    assert [(each["learning_rate"], each["max_steps"]) for each in grid] == [
        (1e-4, 5),
        (1e-4, 10),
        (1e-3, 5),
        (1e-3, 10),
    ]
    assert all(each["loss_kwargs"] == {"beta": 0.1} for each in grid)
    assert settings_grid({}) == [{}]


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate is an empty list"):
        settings_grid({"learning_rate": []})


def test_trials_are_drawn_once_each_and_by_their_seed_alone() -> None:
    grid = settings_grid({"x": list(range(20))})
    drawn = [each["x"] for each in draw_trials("npo", grid, 5, seed=3)]
    assert len(set(drawn)) == 5 and drawn == sorted(drawn)
    assert drawn == [each["x"] for each in draw_trials("npo", grid, 5, seed=3)]
    assert drawn != [each["x"] for each in draw_trials("npo", grid, 5, seed=4)]
    assert draw_trials("npo", grid, 20, seed=0) == grid


def test_a_method_with_too_few_settings_is_named() -> None:
    with pytest.raises(ValueError, match="3 trials, but npo has 2 settings"):
        draw_trials("npo", settings_grid({"learning_rate": [1, 2]}), 3, seed=0)


def test_the_best_setting_is_best_over_all_seeds() -> None:
    def gaps(*values: float) -> list[Judged]:
        return [Judged(value, 1.0) for value in values]

    assert best_setting({0: gaps(0.5, 0.25), 1: gaps(0.0, 0.9), 2: gaps(0.375, 0.375)}) == 0  # equal to 2, and first
    assert best_setting({0: gaps(0.5, 0.5), 1: gaps(0.1)}) == 0, "a setting that failed on a seed is no choice"


def test_the_best_setting_is_one_that_keeps_enough() -> None:
    trials = {0: [Judged(0.1, 0.5), Judged(0.1, 0.9)], 1: [Judged(0.2, 0.9)] * 2, 2: [Judged(0.3, 1.0)] * 2}
    assert [best_setting(trials, share) for share in (0.0, 0.7, 0.8, 0.95)] == [0, 0, 1, 2]
    assert best_setting({0: trials[0], 1: trials[1]}, 0.95) == 1, "where none keeps enough, the one that keeps most"
