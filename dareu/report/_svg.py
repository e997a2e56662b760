"""Where the lines, points and ticks of a picture go; the page's template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dareu.report._verdict import Reading

#: Of the drawing and of the margins around it, in the picture's own units; a unit is about a pixel on a phone.
WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 28, 38


class Tick(NamedTuple):
    """A value on an axis."""

    at: float
    text: str


class Drawn(NamedTuple):
    """A line of a chart."""

    name: str
    points: str
    """`x,y` of each, for a polyline."""
    dots: list[tuple[float, float]]


class Dot(NamedTuple):
    """A model in a picture of two numbers, with its intervals as the ends of a cross."""

    name: str
    role: str
    number: int
    x: float
    y: float
    across: tuple[float, float]
    up: tuple[float, float]
    text: str


class Chart(NamedTuple):
    """A picture, all places of which are in its own units."""

    title: str
    description: str
    xlabel: str
    ylabel: str
    xticks: list[Tick]
    yticks: list[Tick]
    lines: Sequence[Drawn] = ()
    dots: Sequence[Dot] = ()
    marks: Sequence[Tick] = ()
    """Upright lines: updates with a name."""


def line_chart(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], marks: Sequence[tuple[float, str]] = ()
) -> Chart:
    """Lines over updates.

    Args:
        title: Of the chart.
        series: By name, update and value; at least one point in all.
        marks: Updates to point out, with their names.
    """
    points = [point for line in series.values() for point in line]
    steps = [0.0, *(x for x, _ in points), *(x for x, _ in marks)]
    xticks, x = _axis(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    yticks, y = _axis(min(v for _, v in points), max(v for _, v in points), HEIGHT - BOTTOM, TOP)
    lines, told = [], []
    for name, line in series.items():
        placed = [(x(step), y(value)) for step, value in line]
        lines.append(Drawn(name, " ".join(f"{a:.1f},{b:.1f}" for a, b in placed), placed))
        told.append(f"{name} from {line[0][1]:.3g} to {line[-1][1]:.3g}")
    said = [f"{name} at update {step:.0f}" for step, name in marks]
    description = "; ".join([*told, *said]) + "."
    return Chart(title, description, "update", "", xticks, yticks, lines, (), [Tick(x(s), name) for s, name in marks])


def plane(title: str, xlabel: str, ylabel: str, models: Sequence[tuple[str, str, Reading, Reading]]) -> Chart:
    """Models as points between two numbers, on axes as long as they need.

    Args:
        title: Of the chart.
        xlabel: Of the number along the bottom.
        ylabel: Of that up the side.
        models: Name, role, and both readings of each; at least one.
    """
    xticks, x = _axis(*_wide([across for _, _, across, _ in models]), LEFT, WIDTH - RIGHT)
    yticks, y = _axis(*_wide([up for _, _, _, up in models]), HEIGHT - BOTTOM, TOP)
    dots, number = [], 0
    for name, role, across, up in models:
        number += role == "unlearned"
        dots.append(
            Dot(
                *(name, role, number if role == "unlearned" else 0, x(across.value), y(up.value)),
                *((x(across.low), x(across.high)), (y(up.low), y(up.high))),
                f"{name}: {xlabel} {across}, {ylabel} {up}",
            )
        )
    return Chart(title, "; ".join(dot.text for dot in dots) + ".", xlabel, ylabel, xticks, yticks, (), dots)


def _wide(readings: Sequence[Reading]) -> tuple[float, float]:
    """The range of readings with their intervals, and at least a fifth, so that noise fills no picture.

    Shares stay between 0 and 1.
    """
    least, most = min(reading.low for reading in readings), max(reading.high for reading in readings)
    missing = max(0.0, 0.2 - (most - least)) / 2
    low, high = least - missing, most + missing
    if least >= 0 and low < 0:
        low, high = 0.0, high - low
    if most <= 1 and high > 1:
        low, high = low - (high - 1.0), 1.0
    return low, high


class _Scale(NamedTuple):
    """Values of an axis as places in the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def _axis(low: float, high: float, start: float, end: float) -> tuple[list[Tick], _Scale]:
    """Round values that a range lies between, and the scale that places them."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    scale = _Scale(first * step, last * step, start, end)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [Tick(scale(n * step), f"{n * step:,.{digits}f}") for n in range(first, last + 1)], scale


def _round_step(step: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
