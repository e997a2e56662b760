"""Carries out a request to forget owners: from a model, its data and their names to a model that can be handed over.

    dareu forget --model_name_or_path runs/target/model --base_model runs/base --dataset data.jsonl \
        --forget_owners "Ada Quill" "Ben Oram" --output_dir runs/forget

It trains the judges, chooses the learning rate by three short trials, unlearns, measures and attacks the result. In
OUTPUT_DIR are then the model with its card, patch.safetensors, results.json, the page report.html, and requests.jsonl,
the ledger that a further request on this model goes on with. Started again after a kill at any moment, it does what is
missing. `--plan` says what would be done and what it takes.
"""

import logging
import os
import shlex
import shutil
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from trl import TrlParser

from dareu.classifiers import CLASSIFIERS
from dareu.data.parts import DataArguments
from dareu.deltas.patches import make_patch
from dareu.files import write_json
from dareu.methods import find_method
from dareu.metrics import shown_columns
from dareu.models import adapter_base, resolve_model_path
from dareu.options.checking import check_recipe
from dareu.options.forget import ForgetArguments
from dareu.plugins import plugin_name
from dareu.report import shown_digits
from dareu.requests.by_owner import SHOWN, by_owner
from dareu.requests.estimate import estimate
from dareu.requests.handing_over import model_card, place_model, publish
from dareu.requests.ledger import LEDGER, Entry, mark_of, read_ledger, write_ledger
from dareu.requests.lock import working_alone
from dareu.requests.planning import RequestPlan, Trial
from dareu.requests.request import Request, prepare, weights_fingerprint
from dareu.requests.sizing import WAYS
from dareu.rewards import REWARDS
from dareu.runs import (
    ResultRow,
    beside_control,
    common_numbers,
    config_of,
    inputs_of,
    open_run,
    read_measurement,
    read_results,
    write_results,
)
from dareu.runs.plans import Plan
from dareu.runs.program import run_program

logger = logging.getLogger("dareu.forget")

#: What another start may change: it makes more or less of the same result.
FREE = (
    *("jobs", "plan", "audit", "audit_kwargs", "measure_kwargs", "retrained", "name_owners", "stages_dir"),
    *("push_to_hub", "hub_model_id", "hub_private_repo"),
)


def main() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("forget is one process that starts others: start it without num_processes.")
    data, args = TrlParser((DataArguments, ForgetArguments)).parse_args_and_config()
    request = prepare(data, args)
    folder = Path(args.output_dir)
    check = partial(check_recipe, rewards=REWARDS, classifiers=CLASSIFIERS)
    plan = RequestPlan(Plan(Path(args.stages_dir or folder / "stages")), request, args, check)
    trials = plan.trials()
    introduce(request, args)
    if args.plan:
        show_plan(request, args, plan, trials)
        return
    with working_alone(folder):
        inputs = {name: paths for name, paths in inputs_of(data, args).items() if name not in FREE}
        run = open_run(folder, config_of(data, args), inputs, free=FREE)
        start = time.perf_counter()
        facts = facts_of(request, args, trials)
        write_json(folder / "request.json", facts)
        carry_out(request, args, plan, trials, folder, facts)
        run.mark_done()
        print(f"It took {(time.perf_counter() - start) / 60:.1f} minutes.")


def introduce(request: Request, args: ForgetArguments) -> None:
    """Says who is forgotten, of how much, how, and what is weaker than it could be."""
    rows = ", ".join(
        f"{number} to {name}" if name != "test" else f"{number} test" for name, number in request.rows.items()
    )
    print(f"To forget: {', '.join(request.owners)} ({rows} rows).")
    if request.earlier:
        print(f"Forgotten earlier: {', '.join(request.earlier)}; nothing of theirs is retained.")
    print(request.size.reason)
    for sentence in request.weaker:
        print(f"Weaker: {sentence}")


def show_plan(request: Request, args: ForgetArguments, plan: RequestPlan, trials: list[Trial]) -> None:
    """What would be done, and roughly what it takes."""
    rate = args.rate() or trials[1].learning_rate
    models = plan_rest(request, args, plan, rate)
    names = list(plan.plan.stages)
    print(f"\n{len(names)} stages in {plan.plan.folder}:")
    for stage in plan.plan.stages.values():
        for words in stage.commands:
            print(f"  {stage.name}: dareu {words[0]}")
    updates = args.max_steps + len(trials) * max(1, args.max_steps // 3)
    rewarded = find_method(args.method).loss is None
    counted: dict[str, Any] = {"stages": len(names), "models": len(models), "trials": len(trials)}
    found = estimate(request, updates=updates, rewarded=rewarded, use_cpu=args.use_cpu, **counted)
    print(f"At most {updates} updates{f' and {len(trials)} trials of the learning rate' * bool(trials)}.")
    print(f"Memory: {request.size.plan.total / 1e9:.2f} GB of {request.size.available / 1e9:.1f} GB.")
    print(f"Roughly {found.seconds / 60:.0f} minutes on this machine, and {found.disk / 1e9:.2f} GB of disk.")


def carry_out(
    request: Request,
    args: ForgetArguments,
    plan: RequestPlan,
    trials: list[Trial],
    folder: Path,
    facts: dict[str, Any],
) -> None:
    """Runs the stages, and makes of their results what is handed over."""
    rate = args.rate()
    if rate is None:
        stop_at_failures(plan.plan.run(args.jobs), [trial.folder for trial in trials])
        rate = chosen_rate(trials, facts)
    facts["learning_rate"] = rate
    models = plan_rest(request, args, plan, rate)
    facts["models"] = {role: {"model": model, "folder": str(of)} for role, (model, of) in models.items()}
    facts["mask"] = None if plan.mask is None else str(plan.mask)
    stages = plan.plan.stages.values()
    facts["commands"] = [shlex.join(["dareu", *words]) for stage in stages for words in stage.commands]
    write_json(folder / "request.json", facts)
    failed = plan.plan.run(args.jobs)
    unlearned, made = models["unlearned"]
    stop_at_failures(failed, [made])
    for sentence in failed.values():  # of what the model can be without
        facts["weaker"].append(f"A stage failed: {sentence.splitlines()[0]}.")
    for trial in trials:
        if trial.folder != made:
            shutil.rmtree(trial.folder / "model", ignore_errors=True)

    # The row, the ledger, and what is handed over
    row = result_row(models, folder)
    write_results(folder / "results.json", [row])
    owners = {**(earlier_now(models) if "earlier" in models else {}), **by_owner(made / "measurement.parquet")}
    entry = Entry(
        owners=request.owners,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        method=plugin_name(args.method),
        settings={"weights": request.size.way, "learning_rate": rate, "max_steps": args.max_steps, "seed": args.seed},
        fingerprint_before=request.fingerprint,
        fingerprint_after=weights_fingerprint(unlearned),
        metrics=row["metrics"],
        by_owner=owners,
    )
    entries = [*request.entries, dated_as_before(folder / LEDGER, entry)]
    facts["fingerprints"] = {"target": entry.fingerprint_before, "unlearned": entry.fingerprint_after}
    write_json(folder / "request.json", facts)
    write_ledger(folder / LEDGER, entries)
    card = card_of(request, args, entries, models, facts)
    place_model(Path(unlearned), folder / "model", card, mark_of(entries))
    make_patch_of(args.model_name_or_path, folder)
    facts["done"] = True
    write_json(folder / "request.json", facts)
    show(models, entries, row["metrics"])
    print(f"The model is in {folder / 'model'}.")
    if args.push_to_hub:
        where = publish(folder / "model", args.hub_model_id or folder.name, private=args.hub_private_repo)
        print(f"It was uploaded to {where}.")


def plan_rest(request: Request, args: ForgetArguments, plan: RequestPlan, rate: float) -> dict[str, tuple[str, Path]]:
    """Plans the training at a rate, and the measures; gives each model with the folder of what is found of it."""
    made = plan.unlearning(rate, args.max_steps)
    paths = {"target": args.model_name_or_path, "base": args.base_model, "retrained": args.retrained}
    models = {role: (path, plan.measured(role, path)) for role, path in paths.items() if path is not None}
    model = str(made / "model")
    models["unlearned"] = model, plan.measured("unlearned", model, made)
    if request.remembered:
        models["earlier before"] = (
            args.model_name_or_path,
            plan.measured_earlier("target", args.model_name_or_path),
        )
        models["earlier"] = model, plan.measured_earlier("unlearned", model, made)
    return models


def stop_at_failures(failed: dict[str, str], needed: list[Path]) -> None:
    """Raises `ValueError` where none of the stages is left that the request needs."""
    if failed and all(path.name in failed for path in needed):
        raise ValueError(next(iter(failed.values())))


def chosen_rate(trials: list[Trial], facts: dict[str, Any]) -> float:
    """The learning rate of the trial that validation found nearest to a model which never saw the owners."""
    judged = {}
    for trial in trials:
        results = trial.folder / "results.json"
        if results.exists() and "best_gap" in (metrics := read_results(results)[0]["metrics"]):
            judged[trial.learning_rate] = metrics["best_gap"]
    facts["trials"] = [{"learning_rate": rate, "gap": gap} for rate, gap in judged.items()]
    if not judged:
        usual = trials[len(trials) // 2].learning_rate
        facts["weaker"].append(
            f"{facts['method']} is not judged in training: its rate {usual:g} was not chosen by trial."
        )
        return usual
    best = min(judged, key=lambda rate: judged[rate])
    gaps = ", ".join(f"{rate:g}: {gap:.3f}" for rate, gap in judged.items())
    print(f"Learning rate {best:g}, whose trial came nearest on validation rows ({gaps}).")
    return best


def facts_of(request: Request, args: ForgetArguments, trials: list[Trial]) -> dict[str, Any]:
    """What request.json says from the beginning."""
    return {
        "owners": request.owners,
        "earlier_owners": request.earlier,
        "dataset": request.data.dataset,
        "rows": request.rows,
        "method": plugin_name(args.method),
        "weights": WAYS[request.size.way],
        "weights_reason": request.size.reason,
        "weaker": list(request.weaker),
        "trials": [{"learning_rate": trial.learning_rate} for trial in trials],
        "fingerprints": {"target": request.fingerprint},
        "done": False,
    }


def result_row(models: dict[str, tuple[str, Path]], folder: Path) -> ResultRow:
    """The row of the unlearned model, with what compares it with the retrained one where there is one."""
    (row,) = read_results(models["unlearned"][1] / "results.json")
    measured = {
        role: read_measurement(of / "measurement.json") for role, (_, of) in models.items() if "earlier" not in role
    }
    row["metrics"] |= measured["unlearned"]["metrics"]
    if "retrained" in measured:
        common = common_numbers(measured.values())
        row["metrics"] |= beside_control(measured["unlearned"], measured["retrained"], common=common)
    return {**row, "model": str(folder / "model")}


def earlier_now(models: dict[str, tuple[str, Path]]) -> dict[str, dict[str, float]]:
    """What the model says of those who were forgotten earlier, and a warning where it says more than before."""
    now = by_owner(models["earlier"][1] / "measurement.parquet")
    before = by_owner(models["earlier before"][1] / "measurement.parquet")
    for owner, numbers in now.items():
        for name in ("fact_recall", "forget_rouge"):
            if numbers.get(name, 0.0) > before[owner].get(name, 1.0) + 0.1:
                logger.warning(
                    "%s, forgotten earlier, comes back: %s rose from %.2f to %.2f.",
                    owner,
                    name,
                    before[owner][name],
                    numbers[name],
                )
                break
    return now


def dated_as_before(ledger: Path, entry: Entry) -> Entry:
    """The entry with the date that this request has in a ledger already, where an earlier start wrote it."""
    for known in read_ledger(ledger) if ledger.exists() else ():
        if (known.owners, known.fingerprint_after) == (entry.owners, entry.fingerprint_after):
            return entry._replace(date=known.date)
    return entry


def card_of(
    request: Request,
    args: ForgetArguments,
    entries: list[Entry],
    models: dict[str, tuple[str, Path]],
    facts: dict[str, Any],
) -> str:
    """The model's card."""
    owners = [owner for entry in entries for owner in entry.owners]
    measured = {role: read_measurement(of / "measurement.json") for role, (_, of) in models.items() if " " not in role}
    names = [name for name in shown_columns() if name in measured["unlearned"]["metrics"]]
    return model_card(
        name=Path(args.hub_model_id or args.output_dir).name,
        base_model=args.base_model or args.model_name_or_path,
        method=str(facts["method"]),
        weights=str(facts["weights"]),
        num_owners=len(request.owners),
        num_rows=request.rows["forget"],
        requests=len(entries),
        owners=owners if args.name_owners else None,
        numbers={
            name: {role: of["metrics"][name] for role, of in measured.items() if name in of["metrics"]}
            for name in names
        },
        result="",
        limits=facts["weaker"],
    )


def make_patch_of(target: str, folder: Path) -> None:
    """Writes what turns the target into the model, where both are whole models in folders."""
    path = Path(resolve_model_path(target))
    result = folder / "model"
    if not path.is_dir() or any(adapter_base(str(each)) is not None for each in (path, result)):
        logger.info("No patch: it is made of two folders with whole models.")
        return
    try:
        make_patch(path, result, folder / "patch.safetensors")
    except ValueError as error:
        logger.warning("No patch: %s", error)


def show(models: dict[str, tuple[str, Path]], entries: list[Entry], metrics: dict[str, float]) -> None:
    """Prints the table of models, and that of everybody who was forgotten."""
    measured = {role: read_measurement(of / "measurement.json")["metrics"] for role, (_, of) in models.items()}
    measured = {role: numbers for role, numbers in measured.items() if "earlier" not in role}
    measured["unlearned"] = metrics
    console = Console(width=None if sys.stdout.isatty() else 130)
    table = Table("", *measured, title="What came of it")
    for name in shown_columns():
        if any(name in of for of in measured.values()):
            cells = (f"{of[name]:.{shown_digits(name)}f}" if name in of else "" for of in measured.values())
            table.add_row(name, *cells)
    console.print(table)
    number_of = {owner: number for number, entry in enumerate(entries, start=1) for owner in entry.owners}
    table = Table("request", "owner", *SHOWN, title="Everybody who was forgotten, now")
    for owner, found in sorted(entries[-1].by_owner.items(), key=lambda item: number_of[item[0]]):
        table.add_row(str(number_of[owner]), owner, *(f"{found[name]:.2f}" if name in found else "" for name in SHOWN))
    console.print(table)


if __name__ == "__main__":
    run_program(main, "forget")
