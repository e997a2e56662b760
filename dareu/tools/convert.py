"""Makes a folder that trains of a GGUF file, whose weights may be quantized.

dareu convert model.gguf OUTPUT_DIR
dareu convert model.gguf OUTPUT_DIR --dtype bfloat16
"""

import argparse

import torch

from dareu.console import plain_console
from dareu.models.gguf_file import convert_gguf
from dareu.runs.program import run_program

#: Float32 first: it holds the numbers of a quantized file exactly.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Runs `dareu convert` with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="dareu convert", description="Make a folder that trains of a GGUF file.")
    parser.add_argument("file", help="GGUF file of a causal language model")
    parser.add_argument("output_dir", help="folder to make")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="of the weights: float32 (default) holds the file's numbers exactly, bfloat16 takes half the space",
    )
    options = parser.parse_args()
    made = convert_gguf(options.file, options.output_dir, dtype=DTYPES[options.dtype])
    plain_console().print(
        f"The model is in {options.output_dir}: {made.model}, {made.parameters:,} parameters in {options.dtype}, from "
        f"{', '.join(made.stored)}.",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    run_program(main, "convert")
