"""Merges models that were trained from one base, by TIES or another method on their task vectors.

dareu merge BASE PART PART OUTPUT_DIR --method ties --density .2 --weight 1
"""

import argparse

from dareu.console import plain_console
from dareu.deltas.merging import MERGE_METHODS, merge_models
from dareu.runs.program import run_program


def main() -> None:
    """Runs `dareu merge` with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="dareu merge", description="Merge models that were trained from one base.")
    parser.add_argument("base", help="folder of the model before training")
    parser.add_argument("parts", nargs="+", metavar="part", help="folders of models trained from it")
    parser.add_argument("output_dir", help="folder to make")
    parser.add_argument("--method", choices=MERGE_METHODS, default="ties", help="default: ties")
    parser.add_argument(
        "--density", type=float, default=0.2, help="share of each model's changes to keep, but for task_arithmetic"
    )
    parser.add_argument("--weight", type=float, default=1.0, help="factor of the merged change")
    parser.add_argument("--seed", type=int, default=0, help="of what dare_ties keeps")
    options = parser.parse_args()
    merge = merge_models(
        options.base,
        options.parts,
        options.output_dir,
        options.method,
        density=options.density,
        weight=options.weight,
        seed=options.seed,
    )
    plain_console().print(
        f"The merged model is in {options.output_dir}: {merge.moved:,} of its {merge.entries:,} entries moved.",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    run_program(main, "merge")
