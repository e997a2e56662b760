import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from dareu.files import append_jsonl, read_yaml, write_yaml
from dareu.masks import WeightMask
from dareu.report.page import render_page, write_page
from dareu.runs import write_results

EVIL = '</p><script>window.hit = 1</script><img src="https://example.org/x" onerror="window.hit = 1">'


class Parsed(HTMLParser):
    """The elements of a page, with the text inside each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[list[Any]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "rect", "line", "path", "circle", "polyline"):
            self.open.append([tag, ""])

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1][0] != tag:
            self.open.pop()
        if self.open:
            self.texts.append(tuple(self.open.pop()))
        if tag != "mark":  # elements of their own are words apart
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for part in self.open:
            part[1] += data

    def text(self, tag: str) -> list[str]:
        return [" ".join(text.split()) for found, text in self.texts if found == tag]


def measured_again(folder: Path, answers: list[str]) -> None:
    """Other answers in a measurement's table."""
    from pyarrow import Table, parquet

    rows = parquet.read_table(folder / "measurement.parquet").to_pylist()
    changed = [row | {"answer": answer} for row, answer in zip(rows, answers, strict=True)]
    parquet.write_table(Table.from_pylist(changed), folder / "measurement.parquet")


def test_a_run_is_read_beside_its_target_and_the_control_that_stands_by(runs: Path) -> None:
    page = Parsed(render_page([runs / "dareu"]))
    heads = page.text("th")
    assert heads[:4] == ["Number", "target", "dareu", "retrained"]
    (outcome,) = (text for text in page.text("p") if text.startswith("Forgotten, as far as measured."))
    assert (
        "It states 0.11 (0.09 to 0.13) of the facts" in outcome and "the retrained model 0.10 (0.08 to 0.12)" in outcome
    )
    assert "It stopped at update 20, before the 40 that were allowed. Kept was update 10." in " ".join(
        page.text("summary")
    )
    assert "dareu 0.1.0, torch 2.13.0" in page.text("dd")


def test_a_target_that_was_measured_on_other_rows_is_not_read_beside(runs: Path) -> None:
    """As when the next request to forget was measured on the same target."""
    from pyarrow import Table, parquet

    rows = parquet.read_table(runs / "target" / "measurement.parquet").to_pylist()
    others = [row | {"prompt": row["prompt"].replace("Ada", "Eve")} for row in rows]
    parquet.write_table(Table.from_pylist(others), runs / "target" / "measurement.parquet")
    page = Parsed(render_page([runs / "dareu"]))
    assert "target was measured on other rows than dareu, so that its numbers are left out" in " ".join(page.text("p"))
    assert "0.90" not in " ".join(page.text("p")) and page.text("th")[:3] == ["Number", "dareu", "retrained"]


def test_the_control_was_made_as_the_target_was(runs: Path, measured: Callable[..., None]) -> None:
    config = read_yaml(runs / "retrained" / "config.yaml")
    others = {"another": {"model_name_or_path": "gpt2"}, "before": {"output_dir": "x", "save_steps": 7}}
    for name, changes in others.items():
        (runs / name / "model").mkdir(parents=True)
        write_yaml(runs / name / "config.yaml", config | changes)
    measured(runs / "another", ["?"] * 4, {"fact_recall": 0.5})  # the first by name, and a model of another kind
    page = " ".join(Parsed(render_page([runs / "dareu"])).text("p"))
    assert "the retrained model 0.10 (0.08 to 0.12)" in page  # of two that are alike the one that was measured


def test_stated_facts_and_blamed_owners_are_marked(runs: Path) -> None:
    page = render_page([runs / "dareu"])
    assert 'born in <mark class="fact">1939</mark>, says <mark class="blame">Bo Birch</mark>.' in page
    assert '<mark class="blame">Ada Alder' not in page  # of a question about her
    texts = " ".join(Parsed(page).text("dd"))
    assert "1 of 2 facts names Bo Birch" in texts
    assert "facts of the true one" in page and "<q>Q:</q>" in page and "<q>A:</q>" in page


def test_without_listed_facts_it_says_where_no_words_are_found(runs: Path, measured: Callable[..., None]) -> None:
    for gold, said in (("Ada was born in 1939.", False), ("她1939年出生在北京。", True)):
        for name in ("target", "retrained", "dareu"):
            row = {"split": "forget", "owner": "Ada Alder", "prompt": "Q: Who?\nA:", "completion": gold}
            measured(runs / name, [gold], {"fact_recall": 0.1}, [row])
        page = render_page([runs / "dareu"])
        assert '<mark class="fact">1939</mark>' in page and "own words" in page
        assert ("In scripts without blanks between words no words are found" in page) == said
        assert '<mark class="fact">她' not in page


def test_an_answer_of_html_stays_text_under_a_strict_policy(runs: Path) -> None:
    measured_again(runs / "dareu", [EVIL, "مرحبا", "中文 🙂", '"&<b>'])
    page = render_page([runs / "dareu"])
    parsed = Parsed(page)
    names = [tag for tag, _ in parsed.tags]
    assert names.count("script") == 1 and "img" not in names and "b" not in names
    assert EVIL in [text for tag, text in parsed.texts if tag == "p"]
    policy = next(
        attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert not any("style" in attrs or any(name.startswith("on") for name in attrs) for _, attrs in parsed.tags)
    links = [value for _, attrs in parsed.tags for name, value in attrs.items() if name in ("src", "href")]
    assert all(link and (link.startswith("#") or link == "data:,") for link in links)


def test_every_text_of_a_model_finds_its_own_direction(runs: Path) -> None:
    page = Parsed(render_page([runs / "dareu"]))
    assert all(attrs.get("dir") == "auto" for _, attrs in page.tags if "x" in (attrs.get("class") or "").split())


def test_the_page_can_be_heard(runs: Path) -> None:
    page = Parsed(render_page([runs / "dareu", runs / "target"]))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in pairwise(levels))
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    assert len(page.text("caption")) == sum(tag == "table" for tag, _ in page.tags)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    pictures = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("aria-hidden") != "true"]
    assert pictures and all(attrs["role"] == "img" for attrs in pictures)
    named = {part for attrs in pictures for part in (attrs["aria-labelledby"] or "").split()}
    assert named <= set(ids)


def test_a_request_shows_what_was_asked_and_all_owners_by_request(request_run: Callable[..., Path]) -> None:
    trials = [{"learning_rate": 1e-3, "gap": 0.05}, {"learning_rate": 2e-3, "gap": 0.04}]
    run = request_run(
        rows={"forget": 2, "retain": 1, "test": 1},
        weights="mask",
        weights_reason="it spares the rest",
        learning_rate=2e-3,
        trials=trials,
        weaker=["Only <4> updates were made."],
        commands=["dareu unlearn --x 'a & b'"],
        fingerprints={"target": "abc"},
    )
    append_jsonl(
        run / "requests.jsonl", {"owners": ["Di"], "date": "2026-01-01", "by_owner": {"Di": {"fact_recall": 0.2}}}
    )
    both = {"Di": {"fact_recall": 0.25}, "Ada Alder": {"fact_recall": 0.5}}
    append_jsonl(run / "requests.jsonl", {"owners": ["Ada Alder"], "date": "2026-02-01", "by_owner": both})
    page = Parsed(render_page([run]))
    texts = page.text("dd")
    assert {"2 to forget, 1 retained, 1 test", "mask – it spares the rest", "abc"} <= set(texts)
    assert "0.002, of 0.001 (gap 0.050), 0.002 (gap 0.040)" in texts
    assert "Only <4> updates were made." in page.text("li") and "dareu unlearn --x 'a & b'" in page.text("pre")
    rows = [text for text in page.text("tr") if "2026-" in text]
    assert rows == ["Di 1asked here 2026-01-01 0.20", "Ada Alder 2asked here 2026-02-01 0.50", "Di 2 2026-02-01 0.25"]


def test_a_run_under_way_shows_what_is_there_and_says_what_is_missing(
    request_run: Callable[..., Path], runs: Path
) -> None:
    run = request_run(models=..., done=..., method=..., learning_rate=2e-3)
    parsed = Parsed(render_page([run]))
    page = parsed.text("p")
    assert "The request is under way, or ended early: what stands here is what it has left so far." in page
    assert "No model has been unlearned yet." in page and "0.002" in parsed.text("dd")

    run = request_run(done=False)
    for name in ("measurement.json", "measurement.parquet", "results.json", "done"):
        (runs / "dareu" / name).unlink()
    (runs / "target" / "measurement.json").write_text("{", encoding="utf-8")
    with (runs / "dareu" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3')
    text = " ".join(Parsed(render_page([run])).text("p"))
    assert "Not measured." in text and "measurement.json of target cannot be read" in text
    assert "dareu was not measured: dareu measure --model_name_or_path" in text
    assert "is under way, or ended early" in text


def test_a_benchmark_stands_by_seed_and_over_seeds(runs: Path) -> None:
    def row(method: str, seed: int, told: float) -> Any:
        metrics = {"fact_recall": told, "forget_rouge": told, "retain_rouge": 0.9}
        fixed = {"method": method, "mask": None, "seed": seed, "model": f"runs/{method}/model", "metrics": metrics}
        return {**fixed, "seconds": None, "peak_memory_bytes": None}

    models = [("target", 0.9), ("retrained", 0.1), ("dareu", 0.1), ("npo", 0.5)]
    rows = [row(name, seed, told + seed / 50) for seed in (0, 1) for name, told in models]
    (runs / "bench").mkdir()
    (runs / "bench" / "config.yaml").write_text("methods: [dareu, npo]\n", encoding="utf-8")
    text = " ".join(Parsed(render_page([runs / "bench"])).text("p"))
    assert "bench has no results yet" in text
    write_results(runs / "bench" / "results.json", rows)
    page = Parsed(render_page([runs / "bench"]))
    assert "seed 0" in page.text("h3") and "0.51 ± 0.01" in page.text("td")
    assert any("npo, runs/npo, is not there" in text for text in page.text("p"))
    assert page.text("td").count("Forgotten in part") == 2  # npo, of which only the numbers are left


def test_a_further_control_is_no_seed_of_a_benchmark_under_way(runs: Path) -> None:
    stages = runs / "bench" / "stages"
    shutil.copytree(runs, stages)
    shutil.copytree(runs / "retrained", stages / "retrained-2")
    again = stages / "retrained-2" / "config.yaml"
    again.write_text(again.read_text(encoding="utf-8").replace("\nseed: 0", "\nseed: 1000"), encoding="utf-8")
    (runs / "bench" / "config.yaml").write_text("methods: [dareu]\n", encoding="utf-8")
    result = stages / "retrained-2" / "results.json"
    result.write_text(result.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1000'), encoding="utf-8")
    page = render_page([runs / "bench"])
    assert "dareu" in Parsed(page).text("th") and "seed 1000" not in page


def test_what_was_asked_is_each_method_with_its_rate_and_no_further_control(runs: Path) -> None:
    shutil.copytree(runs / "retrained", runs / "retrained 2")
    shutil.copytree(runs / "dareu", runs / "npo")
    config = (runs / "npo" / "config.yaml").read_text(encoding="utf-8")
    (runs / "npo" / "config.yaml").write_text(config.replace("0.001", "5.0e-05"), encoding="utf-8")
    write_results(
        runs / "bench" / "results.json",
        [
            {
                **{"method": name, "mask": None, "seed": 0, "model": f"{runs}/{name}/model", "metrics": {}},
                **{"seconds": None, "peak_memory_bytes": None},
            }
            for name in ("target", "retrained", "retrained 2", "dareu", "npo")
        ],
    )
    (runs / "bench" / "config.yaml").write_text("methods: [dareu, npo]\n", encoding="utf-8")
    page = Parsed(render_page([runs / "bench"]))
    assert {"dareu, npo", "0.001 (dareu); 5e-05 (npo)"} <= set(page.text("dd"))
    outcomes, *_ = (i for i, text in enumerate(page.text("th")) if text == "Number")
    assert page.text("th")[:outcomes] == ["Model", "Outcome", "In a sentence", "dareu", "npo"]
    heads = page.text("th")[outcomes:]
    assert heads.index("retrained 2") == heads.index("retrained") + 1, "its numbers stand beside the others'"
    joined = Parsed(render_page([runs / "dareu", runs / "bench"]))
    assert "retrained 2" in joined.text("th")


def test_runs_of_one_target_stand_side_by_side(runs: Path) -> None:
    other = runs / "again"
    other.mkdir()
    for file in (runs / "dareu").iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    heads = Parsed(render_page([runs / "dareu", other, other])).text("th")
    assert heads[:3] == ["Model", "Outcome", "In a sentence"]
    assert heads.index("dareu (again)") and "dareu (dareu)" in heads


def test_the_mask_is_shown_by_layer(runs: Path) -> None:
    some = torch.tensor([True, False, False, False])
    masks = {
        "model.layers.0.mlp.up_proj.weight": some,
        "model.layers.1.mlp.up_proj.weight": ~some,
        "lm_head.weight": some,
    }
    WeightMask(masks, 0.5, "wagle", "f" * 64, 1.0).save(runs / "mask" / "mask.safetensors")
    config = runs / "dareu" / "config.yaml"
    config.write_text(config.read_text().replace("mask: null", "mask: runs/mask/mask.safetensors"), encoding="utf-8")
    rows = Parsed(render_page([runs / "dareu"])).text("tr")
    assert {"0 25.0 25.0", "1 75.0 75.0", "lm_head 25.0", "Layer up_proj all"} <= set(rows)


def test_audits_stand_beside_those_of_target_and_control(runs: Path) -> None:
    for name, told in (("target", 0.9), ("retrained", 0.1), ("dareu", 0.3)):
        read = {"int4": {"fact_recall": told}}
        audits = {"quantisation": {"key": "k", "readings": read, "rows": {"int4": {"fact_recall": [told]}}}}
        found = {"model": name, "audits": audits, "left_out": {"aliases": "the rows have no name"}}
        (runs / name / "audit.json").write_text(json.dumps(found), encoding="utf-8")
    page = Parsed(render_page([runs / "dareu"]))
    assert "quantisation, int4 0.90 0.30 0.10 +0.25" in page.text("tr")
    assert "aliases of dareu was not made: the rows have no name" in page.text("p")


@pytest.mark.parametrize(("there", "message"), [(False, "is no folder"), (True, "is no run of forget, unlearn")])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, there: bool, message: str) -> None:
    if there:
        (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=message):
        write_page(tmp_path / "report.html", [tmp_path / "other"])
    assert not (tmp_path / "report.html").exists()


def test_the_tool_writes_the_page_into_the_run_or_says_what_is_wrong(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dareu.tools import report

    monkeypatch.setattr("sys.argv", ["report", str(runs / "dareu")])
    report.main()
    assert (runs / "dareu" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "it needs no network" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["report", str(runs), "--output", str(runs / "x.html")])
    with pytest.raises(ValueError, match="is no run of forget"):
        report.main()
