from itertools import pairwise

import pytest

from dareu.report._svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart, plane
from dareu.report._verdict import Reading


@pytest.mark.parametrize("values", [[0.031, 0.97], [-3.0, 1200.0], [5.0, 5.0], [1e-7, 3e-7], [0.0, 0.0]])
def test_ticks_are_even_round_and_hold_every_value(values: list[float]) -> None:
    chart = line_chart("c", {"line": [(10.0 * n, value) for n, value in enumerate(values, 1)]}, [(15.0, "kept")])
    ticks = [float(tick.text.replace(",", "")) for tick in chart.yticks]
    assert ticks[0] <= min(values) and max(values) <= ticks[-1] and 2 <= len(ticks) <= 7
    steps = {round(b - a, 9) for a, b in pairwise(ticks)}
    assert max(steps) - min(steps) <= 1e-8 * max(1.0, *map(abs, ticks))
    assert chart.yticks[0].at == HEIGHT - BOTTOM and chart.yticks[-1].at == TOP
    (line,) = chart.lines
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in line.dots)
    assert "kept at update 15" in chart.description and [mark.text for mark in chart.marks] == ["kept"]


def test_models_are_numbered_and_shares_stay_shares() -> None:
    one, high = Reading(1.0, 0.98, 1.0), Reading(0.99, 0.97, 1.0)
    models = [("target", "target", one, high), ("npo", "unlearned", high, one), ("ga", "unlearned", one, one)]
    chart = plane("p", "x", "y", models)
    assert [dot.number for dot in chart.dots] == [0, 1, 2]
    assert [tick.text for tick in (chart.yticks[0], chart.yticks[-1])] == ["0.80", "1.00"]
    assert chart.dots[1].x < chart.dots[0].x and chart.dots[1].y < chart.dots[0].y  # up is a smaller y
    assert "npo: x 0.99 (0.97 to 1.00), y 1.00 (0.98 to 1.00)" in chart.description
