"""Compares methods, masks and seeds from one YAML: models, judges, masks, unlearning, measures, tables and a picture.

    dareu benchmark --config recipes/configs/fictional/benchmark.yaml

Every stage is one of the other recipes in a process of its own. Started again after a kill at any moment, it does only
what is missing; stages are shared with every other benchmark of the same STAGES_DIR. Results are in OUTPUT_DIR:
results.json, results.csv, table.md and tradeoff.png.
"""

import logging
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from dareu.classifiers import CLASSIFIERS
from dareu.comparison.collecting import collect
from dareu.comparison.entries import read_entries
from dareu.comparison.ground import Ground
from dareu.comparison.planning import measures_of, plan_seed
from dareu.console import plain_console
from dareu.data.parts import DataArguments
from dareu.metrics import shown_columns
from dareu.options.benchmark import BenchmarkArguments
from dareu.options.checking import check_recipe
from dareu.options.parsing import OptionParser
from dareu.report import comparison_table, draw_tradeoff, summarise, write_csv, write_markdown
from dareu.report.picture import can_draw
from dareu.rewards import REWARDS
from dareu.runs import config_of, open_run, write_results
from dareu.runs.plans import Plan
from dareu.runs.program import run_program

logger = logging.getLogger("dareu.benchmark")

CONFIGS = Path(__file__).parent / "configs"


def main() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("benchmark is one process that starts others: name the config of those as launch_with.")
    data, args = OptionParser((DataArguments, BenchmarkArguments)).parse_args_and_config()
    if args.vary_world and data.dataset != "fictional":
        raise ValueError(f"vary_world belongs to the fictional world, and dataset is {data.dataset}: leave it out.")
    configs = Path(args.configs) if Path(args.configs).is_dir() else CONFIGS / args.configs
    if not configs.is_dir():
        shipped = ", ".join(sorted(path.name for path in CONFIGS.iterdir()))
        raise ValueError(f"configs is {args.configs!r}: give a folder, or one of {shipped}.")
    entries = read_entries(args.methods, args.masks, configs, trials=args.tune, seed=args.tune_seed)
    plan = Plan(Path(args.stages_dir or Path(args.output_dir) / "stages"))
    check = partial(check_recipe, rewards=REWARDS, classifiers=CLASSIFIERS)
    grounds = [Ground(plan, data, args, configs, seed, check) for seed in args.seeds]
    measures = measures_of(grounds[0])
    rows = [row for ground in grounds for row in plan_seed(ground, entries)]

    # Everything that can be wrong was looked at before anything is written
    config = config_of(data, args)
    run = open_run(args.output_dir, config, free=list(config))  # the stages know what each was made of
    start = time.perf_counter()
    logger.info("%d models from %d stages in %s.", len(rows), len(plan.stages), plan.folder)
    failed = plan.run(args.jobs)

    # Compare
    chosen, kwargs = measures.metrics, measures.metric_kwargs
    choice: dict[str, Any] = {"tuned": bool(args.tune), "min_utility": args.min_utility}
    results = collect(rows, failed, metrics=chosen, metric_kwargs=kwargs, **choice)
    write_results(run.results_path, results)
    write_csv(run.folder / "results.csv", results)
    summaries = summarise(results)
    table = comparison_table(summaries, args.metrics or [*shown_columns(chosen), "updates", "seconds"])
    plain_console(200).print(table)
    write_markdown(run.folder / "table.md", table)
    if not can_draw():
        logger.warning("No picture, for matplotlib is not installed: pip install 'dareu[plots]'.")
    elif {"target", "retrained"} <= {summary.method for summary in summaries}:
        draw_tradeoff(run.folder / "tradeoff.png", summaries)
    print(f"The results are in {run.folder}. It took {(time.perf_counter() - start) / 60:.1f} minutes.")
    if failed:
        print(f"\n{len(failed)} of {len(plan.stages)} stages failed:\n\n" + "\n\n".join(failed.values()))
        sys.exit(1)
    run.mark_done()


if __name__ == "__main__":
    run_program(main, "benchmark")
