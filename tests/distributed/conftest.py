"""Scripts that two processes run together, over gloo on the CPU."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def two_processes() -> Callable[..., None]:
    """`two_processes(script, folder, VARIABLE=…)`: both must end well; the folder is the script's argument."""

    def run(script: Path, folder: Path, *, timeout: int = 600, **variables: str) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        result = subprocess.run(
            [*command, str(script), str(folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        )
        assert result.returncode == 0, result.stderr[-4000:]

    return run
