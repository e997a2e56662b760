"""Measures one model by every metric, and keeps the result until the model, the data or a judge changes.

    dareu measure --model_name_or_path runs/dareu/model --reward_judge runs/classifier/classifier \
        --test_judge runs/test_judge/classifier --base_model fictional-base

Metrics and answers go to measurement.json beside the model; a results.json there is completed with them.
"""

import logging
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.table import Table
from trl import TrlParser

from dareu.classifiers import load_classifier, strip_echo
from dareu.data import take_fold
from dareu.data.parts import DataArguments, chat_form, forget_names, load_parts, split_owners
from dareu.files import content_hash, write_json
from dareu.metrics import measure, tow
from dareu.models import load_model, load_tokenizer, resolve_model_path
from dareu.models.adapters import adapter_base
from dareu.options.measure import MeasureArguments
from dareu.runs import config_of, read_results, write_results
from dareu.runs.program import run_program

logger = logging.getLogger("dareu.measure")


def main() -> None:
    data, args = TrlParser((DataArguments, MeasureArguments)).parse_args_and_config()
    judges = {"reward": args.reward_judge, "validation": args.validation_judge, "test": args.test_judge}
    judges = {name: judge for name, judge in judges.items() if judge is not None}
    if len({Path(judge).resolve() for judge in judges.values()}) < len(judges):
        jobs = ", ".join(f"{name} judge" for name in judges)
        raise ValueError(f"One folder is named twice among {jobs}: each has a job of its own.")
    folder = Path(resolve_model_path(args.model_name_or_path))
    if args.output is None and folder.name != "model":
        raise ValueError(f"{args.model_name_or_path} is no model of a run folder: name a file to write as output.")
    output = Path(args.output) if args.output is not None else folder.parent / "measurement.json"
    paths = [*([folder] if folder.exists() else []), *(Path(judge) for judge in judges.values())]
    # What is a name to the data and the base model, and not a file, stands for itself
    base = args.base_model and resolve_model_path(args.base_model)
    named = (data.dataset, data.test_dataset, base, adapter_base(str(folder)))
    paths += [Path(name) for name in named if name and Path(name).exists()]
    settings = {name: value for name, value in config_of(data, args).items() if name not in ("output", "retrained")}
    key = content_hash([settings, *paths])

    cached = read_measurement(output)
    if cached is None or cached["key"] != key:
        parts = load_parts(data)
        split, owners = split_owners(data, parts.owners), forget_names(data, parts.owners)
        if parts.test is None:
            raise ValueError(f"{data.dataset} has no test rows: name a file of them as test_dataset.")
        tokenizer = load_tokenizer(args.model_name_or_path, pad_token=data.pad_token)
        model = load_model(args.model_name_or_path).to(PartialState().device)
        splits = {"forget": split.forget, "retain": split.retain, "test": parts.test}
        if args.fold is not None:
            splits = {name: take_fold(rows, args.fold).inside for name, rows in splits.items()}
        splits |= {name: thin(splits[name], args.max_rows) for name in ("retain", "test")}
        splits = {name: chat_form(data, rows, tokenizer) for name, rows in splits.items()}
        measured = measure(
            model,
            tokenizer,
            splits,
            judges={name: load_classifier(judge) for name, judge in judges.items()},
            forget_owners=owners,
            base_model=load_model(args.base_model).to(model.device) if args.base_model is not None else None,
            strip=strip_echo,
            max_new_tokens=args.max_new_tokens,
            batch_size=args.measure_batch_size,
        )
        prompts = {name: [str(prompt) for prompt in rows["prompt"]] for name, rows in splits.items()}
        cached = {"key": key, "metrics": measured.metrics, "answers": measured.answers, "prompts": prompts}
        write_json(output, cached)
    else:
        logger.info("Nothing has changed since %s was written.", output)

    metrics = dict(cached["metrics"])
    if args.retrained is not None:
        control = read_measurement(Path(args.retrained))
        if control is None:
            raise ValueError(f"{args.retrained} does not exist: measure the retrained control first.")
        metrics["tow"] = tow(metrics, control["metrics"])
    results = output.parent / "results.json"
    if results.exists():
        rows = read_results(results)
        for row in rows:
            # A row on a part of the forget rows was measured on those alone
            if Path(row["model"]).resolve() == folder.resolve() and "part" not in row:
                row["metrics"].update(metrics)
        write_results(results, rows)

    table = Table("metric", "value", title=args.model_name_or_path)
    for name, value in metrics.items():
        table.add_row(name, f"{value:.3f}")
    Console().print(table)


def read_measurement(path: Path) -> Any:
    """A measurement.json, or None where there is none."""
    import json

    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def thin(rows: Any, number: int | None) -> Any:
    """At most `number` rows, evenly spread."""
    if number is None or len(rows) <= number:
        return rows
    return rows.select([i * len(rows) // number for i in range(number)])


if __name__ == "__main__":
    run_program(main, "measure")
