"""Ships an unlearned model as a patch of its base: make, apply, info.

dareu patch make BASE RESULT patch.safetensors
dareu patch apply patch.safetensors BASE NEW_FOLDER --undo undo.safetensors
dareu patch info patch.safetensors
"""

import argparse

from rich.console import Console
from rich.table import Table

from dareu.console import plain_console
from dareu.deltas.patches import Patch, apply_patch, make_patch
from dareu.runs.program import run_program


def main() -> None:
    """Runs `dareu patch` with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="dareu patch", description="Ship an unlearned model as a patch of its base.")
    actions = parser.add_subparsers(dest="action", required=True)

    make = actions.add_parser("make", help="write what changed between two model folders")
    make.add_argument("base", help="folder of the model before unlearning")
    make.add_argument("result", help="folder of the model after it")
    make.add_argument("patch", help="file to write, such as patch.safetensors")

    apply = actions.add_parser("apply", help="write the folder of the patched model")
    apply.add_argument("patch", help="patch file, or an undo file")
    apply.add_argument("base", help="folder of the model that the patch was made for")
    apply.add_argument("output_dir", help="folder to make")
    apply.add_argument(
        "--undo", metavar="FILE", help="also write what restores the base's weights; it holds FORGOTTEN DATA"
    )

    info = actions.add_parser("info", help="show what a patch holds")
    info.add_argument("patch", help="patch file")

    arguments = parser.parse_args()
    console = plain_console()
    if arguments.action == "make":
        patch = make_patch(arguments.base, arguments.result, arguments.patch)
        console.print(f"{patch.path}: {_summary(patch)}.", soft_wrap=True, highlight=False)
    elif arguments.action == "apply":
        patch = apply_patch(arguments.patch, arguments.base, arguments.output_dir, undo=arguments.undo)
        console.print(f"The patched model is in {arguments.output_dir}: {_summary(patch)}.", soft_wrap=True)
        if arguments.undo is not None:
            console.print(f"{arguments.undo} holds FORGOTTEN DATA: do not ship it with the model.", soft_wrap=True)
    else:
        show(Patch.read(arguments.patch), console)


def show(patch: Patch, console: Console) -> None:
    """Prints the tensors that a patch changes, and what it is for."""
    table = Table("tensor", "dtype", "shape", "changed", "share", title=str(patch.path))
    for name, tensor in patch.tensors.items():
        if tensor.changed:
            shape = " × ".join(map(str, tensor.shape))
            share = tensor.changed / tensor.entries
            table.add_row(name, tensor.dtype, shape, f"{tensor.changed:,}", f"{share:.3f}")
    table.add_row("all", "", "", f"{patch.changed:,}", f"{patch.changed / patch.entries:.3f}")
    console.print(table)
    untouched = sum(not tensor.changed for tensor in patch.tensors.values())
    for line in (
        f"{untouched} of {len(patch.tensors)} tensors stay as they are.",
        f"size    {_summary(patch)}",
        f"base    {patch.base}",
        f"result  {patch.result}",
        "holds   "
        + ("FORGOTTEN DATA: the values before unlearning; do not ship it" if patch.forgotten else "new values"),
    ):
        console.print(line, soft_wrap=True, highlight=False)


def _summary(patch: Patch) -> str:
    share = patch.changed / patch.entries
    return (
        f"{patch.nbytes:,} bytes, {patch.nbytes / patch.model_nbytes:.3f} of the model's, "
        f"for {share:.3f} of its {patch.entries:,} entries"
    )


if __name__ == "__main__":
    run_program(main, "patch")
