import csv
from pathlib import Path
from typing import Any

import pytest

from dareu.report import comparison_table, draw_tradeoff, picture, summarise, write_csv, write_markdown
from dareu.runs import ResultRow


def row(method: str, mask: str | None = None, seed: int = 0, seconds: float | None = None, **more: Any) -> ResultRow:
    extra = {name: more.pop(name) for name in ("part", "stage", "trial") if name in more}
    fixed: Any = {"method": method, "mask": mask, "seed": seed, "model": "m", "metrics": more}
    return {**fixed, "seconds": seconds, "peak_memory_bytes": None if seconds is None else 2**21, **extra}


ROWS = [
    row("target", tow=0.5, forget_rouge=0.9, retain_rouge=0.95),
    row("retrained", tow=1.0, forget_rouge=0.4, retain_rouge=0.95),
    row("npo", tow=0.7, seconds=3.0, forget_rouge=0.5, retain_rouge=0.8),
    row("npo", seed=1, tow=0.9, seconds=5.0, forget_rouge=0.3, retain_rouge=0.9),
    row("npo", "wagle", tow=0.8, seconds=4.0, forget_rouge=0.5, retain_rouge=0.9, updates=12),
    row("npo", tow=0.1, part="music", stage="before"),
    row("npo", tow=0.2, trial=1),
]


def test_seeds_are_summarised_and_parts_and_trials_left_out() -> None:
    summaries = summarise(ROWS)
    assert [(s.method, s.mask, len(s.rows)) for s in summaries] == [
        ("target", None, 1),
        ("retrained", None, 1),
        ("npo", None, 2),
        ("npo", "wagle", 1),
    ]
    npo = summaries[2]
    assert npo.mean("tow") == pytest.approx(0.8) and npo.text("tow") == "0.80 ± 0.14"  # the sample's: n - 1
    assert npo.text("seconds") == "4 ± 1" and npo.text("peak_memory_mib") == "2 ± 0"
    assert npo.mean("updates") is None and npo.text("updates") == ""
    assert summaries[0].text("seconds") == ""
    assert summarise([row("npo", retraining_gap=0.0316)])[0].text("retraining_gap") == "0.032"


def test_the_table_has_the_metrics_that_there_are(tmp_path: Path) -> None:
    table = comparison_table(summarise(ROWS), ["tow", "nothing", "seconds"])
    write_markdown(tmp_path / "table.md", table)
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["method", "mask", "tow", "seconds"] and len(cells) == 6
    assert cells[4] == ["npo", "–", "0.80 ± 0.14", "4 ± 1"]
    assert cells[5] == ["npo", "wagle", "0.80", "4"]


def test_csv_has_a_line_a_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", ROWS)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(ROWS)
    assert lines[3]["tow"] == "0.9" and lines[3]["seed"] == "1" and lines[3]["updates"] == ""
    assert lines[5]["part"] == "music" and lines[6]["trial"] == "1"


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    draw_tradeoff(tmp_path / "tradeoff.png", summarise(ROWS))
    assert (tmp_path / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="row of the retrained model"):
        draw_tradeoff(tmp_path / "other.png", [s for s in summarise(ROWS) if s.method != "retrained"])
    assert [path.name for path in tmp_path.iterdir()] == ["tradeoff.png"]


def test_a_further_control_is_a_hollow_star_to_which_no_arrow_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="pictures need matplotlib").Figure
    drawn: list[Any] = []
    save = figure.savefig
    monkeypatch.setattr(
        figure, "savefig", lambda self, *args, **kwargs: drawn.append(self) or save(self, *args, **kwargs)
    )
    more = row("retrained 2", forget_rouge=0.42, retain_rouge=0.94)
    draw_tradeoff(tmp_path / "tradeoff.png", summarise([*ROWS, more]))
    panel = drawn[0].axes[0]
    marks = {line.get_label(): (line.get_marker(), line.get_markerfacecolor()) for line in panel.get_lines()}
    assert marks["retrained"] == ("*", "black") and marks["retrained 2"] == ("*", "none")
    assert len(panel.texts) == 2, "an arrow to NPO without a mask, and one under it"


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "can_draw", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'dareu\[plots\]'"):
        draw_tradeoff(tmp_path / "tradeoff.png", summarise(ROWS))
