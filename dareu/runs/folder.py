"""Run folders: what was run, with what, and what came out."""

import dataclasses
import logging
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dareu.files import atomic_file, content_hash, read_yaml, to_plain, write_json, write_yaml
from dareu.runs._lock import hold

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The folder of one run: its `config.yaml`, and whatever the run writes beside it."""

    folder: Path

    @property
    def metrics_path(self) -> Path:
        """Where the run appends what it logs on the way, one JSON object a line."""
        return self.folder / "metrics.jsonl"

    @property
    def results_path(self) -> Path:
        """Where the run writes its rows (see `write_results`)."""
        return self.folder / "results.json"

    @property
    def done(self) -> bool:
        """Whether `mark_done` was called on this folder, in this process or an earlier one."""
        return (self.folder / "done").exists()

    def mark_done(self) -> None:
        """Says that the run is complete, so that starting it again finds nothing to do.

        What processes that were killed have left half-written is deleted.
        """
        for path in self.folder.glob(".tmp-*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        with atomic_file(self.folder / "done") as temporary:
            temporary.touch()


def open_run(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Path]] | None = None,
    *,
    free: Collection[str] = (),
    alone: bool = True,
) -> Run:
    """Opens the folder of a run: a new one, or one that the same config made before.

    A new folder gets a `config.yaml` of the resolved config, which `--config` reads back; the
    versions of the libraries and the git revision of the working directory stand in its head as comments.
    All processes of a distributed run may call this.

    Args:
        folder: The run's folder; a missing one is new, and one without files.
        config: The resolved settings, of the types that `to_plain` takes. The entry `output_dir` is not
            compared, since it is the folder itself, which may have moved.
        inputs: Files and folders that the run reads, as `inputs_of` finds them; they are known by their content, so
            that a model made anew under its old name is another model, and an edited plug-in another plug-in.
        free: Settings that another start may change, such as the number of jobs; `config.yaml` has the last ones.
        alone: Whether this process holds the folder until it ends: of a distributed run, the main one does.

    Raises:
        ValueError: If the folder was made by another config or from other inputs, or holds files but no
            `config.yaml`, or a process of another start is at work in it.
    """
    folder = Path(folder)
    path, inputs_file = folder / "config.yaml", folder / "inputs.json"
    plain = to_plain(config)
    hashes = {name: content_hash(paths) for name, paths in (inputs or {}).items()}
    known = read_yaml(inputs_file) if inputs_file.exists() else {}
    earlier = read_yaml(path) if path.exists() else None
    if earlier is not None:
        differing = _differences(_without(earlier, free), _without(plain, free))
        if differing:
            shown = "; ".join(differing[:3]) + ("; …" if len(differing) > 3 else "")
            raise ValueError(
                f"{folder} holds a run with another config ({shown}); give another --output_dir, or delete that folder."
            )
        if changed := [name for name in {**known, **hashes} if known.get(name) != hashes.get(name)]:
            raise ValueError(
                f"{folder} holds a run whose {', '.join(changed)} had another content; give another --output_dir, "
                "or delete that folder."
            )
    elif folder.exists():
        # A process that died before it wrote the config may have left the inputs
        ours = {inputs_file} if known == hashes else set()
        if any(_holds_files(item) for item in folder.iterdir() if item not in ours):
            raise ValueError(f"{folder} holds files but no config.yaml of a run; give another --output_dir.")
    if alone:
        hold(folder)
    if earlier is None:
        if hashes:
            write_json(inputs_file, hashes)
        write_yaml(path, plain, comment=_circumstances())
    else:
        if _without(earlier, ()) != _without(plain, ()):
            write_yaml(path, plain, comment=_circumstances())
        logger.info("Found a run of the same config in %s.", folder)
    return Run(folder)


def _holds_files(item: Path) -> bool:
    """Whether it is a file or a folder with one, hidden ones aside: trainers make folders before the run is opened."""
    if item.name.startswith("."):
        return False
    return not item.is_dir() or any(_holds_files(part) for part in item.iterdir())


def _without(config: Mapping[str, Any], free: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "output_dir" and key not in free}


def _differences(earlier: Any, now: Any, name: str = "") -> list[str]:
    """The settings that differ, as `name: value there, value now`, nested ones by dotted names."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        lines: list[str] = []
        for key in dict.fromkeys([*earlier, *now]):
            dotted = f"{name}.{key}" if name else key
            lines += _differences(earlier.get(key, ...), now.get(key, ...), dotted)
        return lines
    there, here = ("nothing" if value is ... else repr(value) for value in (earlier, now))
    return [] if earlier == now else [f"{name}: {there} there, {here} now"]


def _circumstances() -> str:
    """What stands in the head of `config.yaml`: the versions of the libraries and the git revision."""
    lines = [", ".join(f"{name} {version(name)}" for name in ("dareu", "torch", "transformers", "trl"))]
    command = "git describe --always --dirty --abbrev=40 --exclude=*"  # the bare revision, without tags
    try:
        git = subprocess.run(command.split(), capture_output=True, text=True, check=True)
        lines.append(f"git {git.stdout.strip()}")
    except (OSError, subprocess.CalledProcessError):
        logger.debug("No git here, or no commit in it.")
    return "\n".join(lines)


def config_of(*arguments: Any) -> dict[str, Any]:
    """The resolved settings of a recipe's argument dataclasses, as `open_run` takes them.

    Fields that only the dataclass itself fills in, and those that it lists as `derived` from others, are left out, so
    that the config can be given back to the recipe.
    """
    return {
        item.name: getattr(part, item.name)
        for part in arguments
        for item in dataclasses.fields(part)
        if item.init and item.name not in getattr(part, "derived", ())
    }
