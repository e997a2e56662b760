"""What forgetting costs the rest, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dareu.files import atomic_file
from dareu.report._models import role_of
from dareu.report.table import Summary

#: A panel each: the metric along the bottom, and the one up the side.
PANELS = (("forget_rouge", "retain_rouge"), ("forget_probability", "retain_probability"))

#: Of masks; the star is the retrained model's.
_MARKERS = "osD^vPXph<>dH8"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_tradeoff(path: Path, summaries: Sequence[Summary]) -> None:
    """Draws each method's mean over seeds between forgetting and retaining, as a PNG.

    An arrow leads from the target to each method; the closer to the star, the retrained model, the better. Further
    controls are hollow stars. Methods under masks have the colour of the method and a marker of the mask.

    Args:
        path: The file.
        summaries: With one whose method is `target` and one `retrained`.

    Raises:
        ValueError: matplotlib is not installed, or one of the two is missing.
    """
    if not can_draw():
        raise ValueError("A picture needs matplotlib: pip install 'dareu[plots]'.")
    from matplotlib.figure import Figure

    named = {summary.method: summary for summary in summaries}
    if missing := [name for name in ("target", "retrained") if name not in named]:
        raise ValueError(f"The picture needs a row of the {' and the '.join(missing)} model: measure it too.")
    methods = list(dict.fromkeys(s.method for s in summaries if role_of(s.method) not in ("target", "retrained")))
    masks = list(dict.fromkeys(s.mask for s in summaries if s.method in methods))
    figure = Figure(figsize=(6.4 * len(PANELS), 5.6), layout="constrained", dpi=120)
    axes: Any = figure.subplots(1, len(PANELS), squeeze=False)[0]
    for ax, (across, up) in zip(axes, PANELS, strict=True):
        start = _place(named["target"], across, up)
        for summary in summaries:
            place = _place(summary, across, up)
            if place is None:
                continue
            if summary.method in methods:
                number = methods.index(summary.method)
                style: dict[str, Any] = {
                    "color": f"C{number % 10}",
                    "marker": _MARKERS[masks.index(summary.mask) % len(_MARKERS)],
                }
                style |= {"markerfacecolor": "none"} if number >= 10 else {}
                label = summary.method + (f", {summary.mask}" if summary.mask else "")
                if start is not None:
                    arrow = {"arrowstyle": "->", "color": style["color"], "alpha": 0.35, "shrinkA": 6, "shrinkB": 5}
                    ax.annotate("", place, start, arrowprops=arrow)
            else:
                target = summary.method == "target"
                style = {"color": "black", "marker": "s" if target else "*", "markersize": 9 if target else 16}
                style |= {} if summary.method in ("target", "retrained") else {"markerfacecolor": "none"}
                label = summary.method
            ax.plot(*place, linestyle="none", label=label, **style)
        ax.set_xlabel(f"{across} (the retrained model's is right)")
        ax.set_ylabel(f"{up} (high keeps)")
        ax.grid(alpha=0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small", frameon=False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _place(summary: Summary, across: str, up: str) -> tuple[float, float] | None:
    x, y = summary.mean(across), summary.mean(up)
    return None if x is None or y is None else (x, y)
