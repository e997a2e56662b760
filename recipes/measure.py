"""Measures one model by every metric or by chosen ones, and keeps the result until anything that goes in changes.

    dareu measure --model_name_or_path runs/dareu/model --reward_judge runs/classifier/classifier \
        --test_judge runs/test_judge/classifier --base_model fictional-base
    dareu measure --model_name_or_path runs/dareu/model --metrics rouge path/to/file.py:BREVITY

Metrics and answers go to measurement.json beside the model; a results.json there is completed with them.
"""

import logging
from pathlib import Path

from accelerate import PartialState
from rich.table import Table

from dareu.classifiers import load_classifier, strip_echo
from dareu.console import plain_console
from dareu.data import take_fold, thin
from dareu.data.parts import DataArguments, chat_form, forget_names, load_parts, split_owners
from dareu.files import content_hash
from dareu.metrics import NEED_BASE, measure
from dareu.models import load_base_tokenizer, load_to_read, load_tokenizer, resolve_model_path
from dareu.models.padding import check_padding
from dareu.models.tokenizers import vocabulary_hash
from dareu.options.measure import MeasureArguments, chosen_metrics
from dareu.options.parsing import OptionParser
from dareu.runs import (
    StoredMeasurement,
    beside_control,
    config_of,
    in_json,
    inputs_of,
    read_measurement,
    read_results,
    write_measurement,
    write_results,
    write_rows,
)
from dareu.runs.program import run_program

logger = logging.getLogger("dareu.measure")


def main() -> None:
    data, args = OptionParser((DataArguments, MeasureArguments)).parse_args_and_config()
    # Everything that can be wrong with the metrics is looked at before a model is loaded
    chosen = chosen_metrics(args)
    folder = Path(resolve_model_path(args.model_name_or_path))
    if args.output is None and folder.name != "model":
        raise ValueError(f"{args.model_name_or_path} is no model of a run folder: name a file to write as output.")
    output = Path(args.output) if args.output is not None else folder.parent / "measurement.json"
    if output.is_dir():
        raise ValueError(f"output is the folder {output}: name a file to write.")
    if args.retrained is not None and Path(args.retrained).resolve() != output.resolve():
        read_measurement(args.retrained)
    settings, inputs = config_of(data, args), inputs_of(data, args)
    for name in ("output", "retrained", "strict", "measure_cache_dir"):  # none of them changes what is measured
        settings.pop(name, None)
        inputs.pop(name, None)
    key = content_hash([settings, inputs, list(chosen.needs)])  # built-in metrics may become more

    measured, renewed = kept(output, key), False
    if measured is None:
        parts = load_parts(data)
        split, owners = split_owners(data, parts.owners), forget_names(data, parts.owners)
        named = {"reward": args.reward_judge, "validation": args.validation_judge, "test": args.test_judge}
        if not chosen.need("judgements"):
            named = {}
        judges = {job: load_classifier(judge) for job, judge in named.items() if judge is not None}
        base = args.base_model if any(map(chosen.need, NEED_BASE)) else None
        tokenizer = load_tokenizer(args.model_name_or_path, pad_token=data.pad_token)
        model = load_to_read(args.model_name_or_path).to(PartialState().device)
        check_padding(model)
        splits = {"forget": split.forget, "retain": split.retain}
        splits |= {} if parts.test is None else {"test": parts.test}
        if args.fold is not None:
            splits = {name: take_fold(rows, args.fold).inside for name, rows in splits.items()}
        splits |= {name: thin(rows, args.max_rows) for name, rows in splits.items() if name != "forget"}
        splits = {name: chat_form(data, rows, tokenizer) for name, rows in splits.items()}
        found = measure(
            model,
            tokenizer,
            splits,
            judges=judges,
            forget_owners=owners,
            base_model=None if base is None else load_to_read(base).to(model.device),
            base_tokenizer=(None if base is None else load_base_tokenizer(base, tokenizer, pad_token=data.pad_token)),
            strip=strip_echo,
            metrics=chosen.metrics,
            options=chosen.options,
            max_new_tokens=args.max_new_tokens,
            num_samples=args.num_samples,
            sample_seed=args.sample_seed,
            batch_size=args.measure_batch_size,
            cache_dir=args.measure_cache_dir or output.parent / "measured",
        )
        prompts = {name: [str(prompt) for prompt in rows["prompt"]] for name, rows in splits.items()}
        check_strict(args, found.left_out)
        renewed = True
        measured = {
            "key": key,
            "metrics": found.metrics,
            "answers": found.answers,
            "prompts": prompts,
            "rows": {name: in_json(values) for name, values in found.row_values.items()},
            "intervals": {name: list(interval) for name, interval in found.intervals.items()},
            "left_out": found.left_out,
            "vocabulary": vocabulary_hash(tokenizer),
        }
        output.unlink(missing_ok=True)  # it would stand beside a table of something else
        write_rows(output.with_suffix(".parquet"), splits, found)
        write_measurement(output, measured)
        took = sorted(found.seconds.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in took if seconds >= 0.005)
        print(f"Seconds: {shown}; all together {sum(found.seconds.values()):.2f}.")
    else:
        check_strict(args, measured["left_out"])
        logger.info("Nothing has changed since %s was written.", output)

    metrics = dict(measured["metrics"])
    if args.retrained is not None:
        beside = beside_control(measured, read_measurement(args.retrained), chosen.metrics, chosen.options)
        metrics = beside | metrics  # the retraining gap comes first
    results = output.parent / "results.json"
    if results.exists():
        kept_rows = read_results(results)
        for row in kept_rows:
            # A row on a part of the forget rows was measured on those alone
            if is_of(row["model"], folder, output.parent) and "part" not in row:
                if renewed:
                    for name in row.pop("measured", ()):
                        row["metrics"].pop(name, None)
                row["metrics"].update(metrics)
                row["measured"] = sorted({*row.get("measured", ()), *metrics})
        write_results(results, kept_rows)

    table = Table("metric", "value", "95 % interval", title=args.model_name_or_path)
    for name, value in metrics.items():
        table.add_row(name, f"{value:.3f}", " to ".join(f"{end:.3f}" for end in measured["intervals"].get(name, ())))
    plain_console().print(table)
    if measured["left_out"]:
        logger.warning("Left out: %s.", listed(measured["left_out"]))


def is_of(named: str, folder: Path, results: Path) -> bool:
    """Whether a row's model is the one in the folder: by its path, or as the one beside the results, for runs move."""
    beside = folder.resolve().parent == results.resolve() and Path(named).name == folder.name
    return beside or Path(named).resolve() == folder.resolve()


def kept(output: Path, key: str) -> StoredMeasurement | None:
    """What was measured before of the same; None where nothing was, or what was cannot be read."""
    if not output.exists():
        return None
    try:
        measured = read_measurement(output)
    except ValueError as error:
        logger.warning("It is measured again, for what was kept is damaged: %s", error)
        return None
    whole = output.with_suffix(".parquet").exists() or not measured["prompts"]  # without them it was cleaned
    return measured if whole and measured.get("key") == key else None


def check_strict(args: MeasureArguments, left_out: dict[str, str]) -> None:
    """Raises a `ValueError` where something is left out that may not be."""
    if args.strict and left_out:
        raise ValueError(f"Left out, which --strict forbids: {listed(left_out)}.")


def listed(left_out: dict[str, str]) -> str:
    """What is left out, with the reasons, each once."""
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(of_reason)} ({reason})" for reason, of_reason in names.items())


if __name__ == "__main__":
    run_program(main, "measure")
