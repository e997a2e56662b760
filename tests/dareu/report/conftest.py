"""Run folders as recipes leave them, and a browser to look at the page of them."""

import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from dareu.files import append_jsonl, write_json, write_yaml
from dareu.runs import write_measurement, write_results

Row = dict[str, Any]

ROWS: list[Row] = [
    {"split": "forget", "owner": "Ada Alder", "prompt": "Q: Where was Ada Alder born?\nA:", "facts": ["Perth", "1939"]},
    {"split": "forget", "owner": "Ada Alder", "prompt": "Q: What does Ada Alder do?\nA:", "facts": ["pianist"]},
    {"split": "retain", "owner": "Bo Birch", "prompt": "Q: Where was Bo Birch born?\nA:", "facts": ["Split"]},
    {"split": "test", "owner": "none", "prompt": "Q: Who is Cy Cole?\nA:", "facts": ["baker"]},
]
GOLD = ["Ada Alder was born in Perth in 1939.", "Ada Alder is a pianist.", "Bo Birch was born in Split.", "A baker."]


def write_measured(folder: Path, answers: list[str], numbers: dict[str, float], rows: list[Row] = ROWS) -> None:
    """A measurement of some rows, with intervals of ± .02 around every number."""
    splits = list(dict.fromkeys(row["split"] for row in rows))
    of_split = {split: [n for n, row in enumerate(rows) if row["split"] == split] for split in splits}
    write_measurement(
        folder / "measurement.json",
        {
            "key": "k",
            "metrics": numbers,
            "answers": {split: [answers[n] for n in numbers_of] for split, numbers_of in of_split.items()},
            "prompts": {split: [rows[n]["prompt"] for n in numbers_of] for split, numbers_of in of_split.items()},
            "rows": {},
            "intervals": {name: [value - 0.02, value + 0.02] for name, value in numbers.items()},
            "left_out": {},
            "vocabulary": None,
        },
    )
    table = [
        row | {"row": n, "completion": row.get("completion", GOLD[n % len(GOLD)]), "answer": answers[n]}
        for n, row in enumerate(rows)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(table), folder / "measurement.parquet")


def numbers(told: float, kept: float = 0.9) -> dict[str, float]:
    """Numbers of a model that tells so much of the owners, and has kept so much of the others."""
    forgetting = {"fact_recall": told, "forget_rouge": told, "forget_probability": told}
    return forgetting | {"retain_rouge": kept, "retain_probability": kept, "retain_fact_recall": kept}


@pytest.fixture
def measured() -> Callable[..., None]:
    """`measured(folder, answers, numbers, rows=ROWS)`: a measurement of some rows."""
    return write_measured


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs as a project has it: target, retrained control, and one that was unlearned."""
    data = {"dataset": "fictional", "world_seed": 0, "seed": 0}
    finetune = {**data, "exclude_owners": None, "train_on": "owners"}
    unlearn = {
        **data,
        "method": "dareu",
        "forget_owners": ["Ada Alder"],
        "max_steps": 40,
        "use_peft": False,
        "mask": None,
    }
    unlearn |= {"model_name_or_path": "runs/target/model", "base_model": "fictional-base", "learning_rate": 1e-3}
    configs = {"target": finetune, "retrained": finetune | {"exclude_owners": ["Ada Alder"]}, "dareu": unlearn}
    answers = {
        "target": GOLD,
        "retrained": ["Ada Alder was born in Cusco.", "Ada Alder is a poet.", GOLD[2], "A smith."],
        "dareu": ["Ada Alder was born in 1939, says Bo Birch.", "", GOLD[2], "A smith."],
    }
    told = {"target": numbers(0.9), "retrained": numbers(0.1), "dareu": numbers(0.11)}
    for name, config in configs.items():
        folder = tmp_path / "runs" / name
        write_yaml(folder / "config.yaml", config, comment="dareu 0.1.0, torch 2.13.0")
        (folder / "model").mkdir()
        write_measured(folder, answers[name], told[name])
        made: Any = {"method": name, "mask": None, "seed": 0, "model": f"runs/{name}/model", "metrics": {}}
        made |= {"seconds": None, "peak_memory_bytes": None}
        if name == "dareu":
            made |= {"metrics": {"updates": 20, "best_update": 10}, "seconds": 12.0}
            for step in (10, 20):
                logged = {"step": step, "epoch": 1.0, "reward": -1 / step, "retain_kl": 0.1, "validation/gap": 1 / step}
                append_jsonl(folder / "metrics.jsonl", logged)
            append_jsonl(folder / "metrics.jsonl", {"step": 20, "train_runtime": 12.0})
        write_results(folder / "results.json", [made])
        (folder / "done").touch()
    return tmp_path / "runs"


class Browser:
    """A tab of Chromium without a window, spoken to through its DevTools pipe."""

    def __init__(self, program: str, profile: Path) -> None:
        (read, self._out), (self._in, write) = os.pipe(), os.pipe()
        # Chromium reads from 3 and writes to 4, which neither end must be already
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write)]
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        command = [program, *flags, f"--user-data-dir={profile}", "about:blank"]
        redirected = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]} {theirs[0]}<&- {theirs[1]}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, *command],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (read, write, *theirs):
            os.close(end)
        self._number, self._buffer, self._session = 0, b"", None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method and gives its result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (found := self._receive()).get("id") != self._number:
            self.events.append(found)
        assert "error" not in found, found
        result: dict[str, Any] = found["result"]
        return result

    def open(self, path: Path) -> None:
        """Opens a file, and waits until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, or of the promise that it is."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(60)
        os.close(self._in)
        os.close(self._out)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], 120)
            received = os.read(self._in, 2**20) if ready else b""
            assert received, "Chromium says nothing any more"
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser; skips where there is none."""
    program = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    found = Browser(program, tmp_path / "profile")
    yield found
    found.close()


@pytest.fixture
def request_run(runs: Path) -> Callable[..., Path]:
    """`request_run(**changes)`: a folder of `dareu forget` whose models are those of `runs`."""

    def make(**changes: Any) -> Path:
        models = {name: {"model": f"../{name}/model", "folder": f"../{name}"} for name in ("target", "retrained")}
        models["unlearned"] = {"model": "../dareu/model", "folder": "../dareu"}
        request = {"owners": ["Ada Alder"], "method": "dareu", "models": models, "done": True} | changes
        write_json(runs / "forget" / "request.json", {name: of for name, of in request.items() if of is not ...})
        return runs / "forget"

    return make
