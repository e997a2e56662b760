"""Carries out a request to forget owners: from a model, its data and their names to a model that can be handed over.

    dareu forget --model_name_or_path runs/target/model --base_model runs/base --dataset data.jsonl \
        --forget_owners "Ada Quill" "Ben Oram" --output_dir runs/forget

It trains the judges, chooses the learning rate by three short trials, unlearns, measures and attacks the result. In
OUTPUT_DIR are then the model with its card, patch.safetensors, results.json, the page report.html, and requests.jsonl,
the ledger that a further request on this model goes on with. Started again after a kill at any moment, it does what is
missing. `--plan` says what would be done and what it takes.
"""

import json
import logging
import os
import shlex
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dareu.classifiers import CLASSIFIERS
from dareu.console import plain_console
from dareu.data.parts import DataArguments
from dareu.files import write_json
from dareu.methods import find_method
from dareu.metrics import shown_columns
from dareu.options.checking import check_recipe
from dareu.options.forget import ForgetArguments
from dareu.options.parsing import OptionParser
from dareu.plugins import plugin_name
from dareu.report import Conclusion, conclusion, write_page
from dareu.requests.estimate import estimate
from dareu.requests.handing_over import model_card, patch_model, place_model, publish
from dareu.requests.ledger import LEDGER, Entry, earlier_owners, mark_of, read_ledger, write_ledger
from dareu.requests.planning import RequestPlan, Trial
from dareu.requests.request import Request, prepare, weights_fingerprint
from dareu.requests.results import Models, Placed, doubts, models_table, of_everybody, owners_table, result_row
from dareu.requests.sizing import WAYS
from dareu.rewards import REWARDS
from dareu.runs import StoredMeasurement, config_of, inputs_of, open_run, read_results, write_results
from dareu.runs.holdings import CLEANED
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
    data, args = OptionParser((DataArguments, ForgetArguments)).parse_args_and_config()
    request = prepare(data, args)
    folder = Path(args.output_dir)
    check = partial(check_recipe, rewards=REWARDS, classifiers=CLASSIFIERS)
    plan = RequestPlan(Plan(Path(args.stages_dir or folder / "stages")), request, args, check)
    trials = plan.trials()
    plan.check(args.rate() or trials[0].learning_rate)
    introduce(request, args)
    if args.plan:
        show_plan(request, args, plan, trials)
        return
    inputs = {name: of for name, of in inputs_of(data, args).items() if name.split(".")[0] not in FREE}
    run = open_run(folder, config_of(data, args), inputs, free=FREE)
    if (folder / CLEANED).exists():
        raise ValueError(f"{folder} was cleaned: what it would go on from is gone; give another --output_dir.")
    check_same_model(folder, request)
    start = time.perf_counter()
    facts = facts_of(request, args, trials)
    write_json(folder / "request.json", facts)
    try:
        carry_out(request, args, plan, trials, folder, facts)
    finally:  # of what there is, too
        write_page(folder / "report.html", [folder])
    run.mark_done()
    print(f"It took {(time.perf_counter() - start) / 60:.1f} minutes.")


def check_same_model(folder: Path, request: Request) -> None:
    """Raises `ValueError` where an earlier start in the folder had another model, as a hub may give under one name."""
    path = folder / "request.json"
    known = json.loads(path.read_text(encoding="utf-8"))["fingerprints"]["target"] if path.exists() else None
    if known not in (None, request.fingerprint):
        raise ValueError(f"{folder} was begun with other weights of the model: give another --output_dir.")


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
    counted: dict[str, Any] = {"stages": len(names), "models": len(models.by_role), "trials": len(trials)}
    found = estimate(request, updates=updates, rewarded=rewarded, use_cpu=args.use_cpu, **counted)
    print(f"At most {updates} updates{f' and {len(trials)} trials of the learning rate' * bool(trials)}.")
    print(f"Memory: {request.size.plan.total / 1e9:.2f} GB of {request.size.available / 1e9:.1f} GB.")
    print(f"Roughly {found.seconds / 60:.0f} minutes on this machine, and {found.disk / 1e9:.2f} GB of disk.")


def carry_out(
    request: Request, args: ForgetArguments, plan: RequestPlan, trials: list[Trial], folder: Path, facts: dict[str, Any]
) -> None:
    """Runs the stages, and makes of their results what is handed over."""
    rate = args.rate()
    if rate is None:
        failed = plan.plan.run(args.jobs)
        if all(trial.folder.name in failed for trial in trials):
            raise ValueError(next(iter(failed.values())))
        rate = chosen_rate(trials, facts)
    models = plan_rest(request, args, plan, rate)
    placed: dict[str, dict[str, Any]] = {role: each._asdict() for role, each in models.by_role.items()}
    placed["unlearned"]["run"] = models.run
    facts |= {
        "learning_rate": rate,
        "models": {role: {name: within(of, folder) for name, of in each.items()} for role, each in placed.items()},
        "mask": None if plan.mask is None else within(plan.mask, folder),
        "commands": [shlex.join(["dareu", *words]) for stage in plan.plan.stages.values() for words in stage.commands],
    }
    write_json(folder / "request.json", facts)
    failed = plan.plan.run(args.jobs)
    if models.lacking():
        raise ValueError(next(iter(failed.values())))
    for trial in trials:
        shutil.rmtree(trial.folder / "model", ignore_errors=True)
    source = Path(models.by_role["unlearned"].model)
    after, row = weights_fingerprint(str(source)), result_row(models, folder)
    if after == request.fingerprint or row["metrics"].get("best_update") == 0:
        raise ValueError(
            "Nothing was forgotten: no state of the training was better than the model before it. Nothing is handed "
            "over; the page says more. Try another --learning_rate, more --max_steps or another --method."
        )

    # The row, the ledger, and what is handed over
    measured, everybody = models.measured(), of_everybody(models, request.entries)
    write_results(folder / "results.json", [row])
    facts["weaker"] += [*doubts(measured), *(f"The stage {name} failed." for name in failed)]
    facts |= {"still_told": everybody.still, "come_back": everybody.back}
    entry = Entry(
        owners=request.owners,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        method=plugin_name(args.method),
        settings={"weights": request.size.way, "learning_rate": rate, "max_steps": args.max_steps, "seed": args.seed},
        fingerprint_before=request.fingerprint,
        fingerprint_after=after,
        metrics=row["metrics"],
        by_owner=everybody.by_owner,
    )
    entries = [*request.entries, dated_as_before(folder / LEDGER, entry)]
    write_ledger(folder / LEDGER, entries)
    facts["fingerprints"] = {"target": entry.fingerprint_before, "unlearned": entry.fingerprint_after}
    write_json(folder / "request.json", facts)
    found = conclusion(folder)
    place_model(source, folder / "model", card_of(request, args, entries, measured, found), mark_of(entries))
    if (reason := patch_model(args.model_name_or_path, folder / "model", folder / "patch.safetensors")) is not None:
        logger.warning("No patch: %s", reason)
    facts["done"] = True
    write_json(folder / "request.json", facts)

    console = plain_console(130)
    console.print(models_table(measured, row["metrics"]))
    console.print(owners_table(entries))
    print("\n".join([found.sentence, *everybody.still, *everybody.back]))
    print("\nWhat this does not show:\n" + "\n".join(f"- {limit}" for limit in found.limits))
    print(f"\nThe model is in {folder / 'model'}, the page {folder / 'report.html'}.")
    if args.push_to_hub:
        where = publish(folder / "model", args.hub_model_id or folder.name, private=args.hub_private_repo)
        print(f"It was uploaded to {where}.")


def plan_rest(request: Request, args: ForgetArguments, plan: RequestPlan, rate: float) -> Models:
    """Plans the training at a rate, and the measures."""
    made, target = plan.unlearning(rate, args.max_steps), args.model_name_or_path
    paths = {"target": target, "base": args.base_model, "retrained": args.retrained}
    models = {role: Placed(path, plan.measured(role, path)) for role, path in paths.items() if path is not None}
    model = str(made / "model")
    models["unlearned"] = Placed(model, plan.measured("unlearned", model, made))
    if not request.remembered:
        return Models(made, models, None)
    before = Placed(target, plan.measured_earlier("target", target))
    return Models(made, models, (before, Placed(model, plan.measured_earlier("unlearned", model, made))))


def within(path: str | Path, folder: Path) -> str:
    """A path as it is found from a folder, by its whole path where it lies outside; a hub id as it is."""
    if isinstance(path, str) and not Path(path).exists() and not Path(path).is_relative_to(folder):
        return path
    path = Path(path)
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path.resolve())


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
    measured: Mapping[str, StoredMeasurement],
    found: Conclusion,
) -> str:
    """The model's card."""
    names = [name for name in shown_columns() if name in measured["unlearned"]["metrics"]]
    return model_card(
        name=Path(args.hub_model_id or args.output_dir).name,
        base_model=args.base_model or args.model_name_or_path,
        method=plugin_name(args.method),
        weights=WAYS[request.size.way],
        num_owners=len(request.owners),
        num_rows=request.rows["forget"],
        requests=len(entries),
        owners=earlier_owners(entries) if args.name_owners else None,
        numbers={
            name: {role: of["metrics"][name] for role, of in measured.items() if name in of["metrics"]}
            for name in names
        },
        result=found.sentence,
        limits=found.limits,
    )


if __name__ == "__main__":
    run_program(main, "forget")
