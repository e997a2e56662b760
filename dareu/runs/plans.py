"""Plans of stages that run recipes from YAML files, each in a folder named by a hash of what goes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dareu import __version__
from dareu.files import content_hash, readable_name, to_plain, write_yaml
from dareu.runs.stages import Stage, run_stages

#: Stands for the stage's own folder in the values of its options, and `f"{CONFIG}.1.yaml"` for the YAML of its second
#: command.
OWN, CONFIG = "<own>", "<config>"


@dataclass
class Plan:
    """Stages to run. Nothing is written before `run`, so that everything can be looked at first.

    Attributes:
        folder: Gets a folder of each stage, `configs/` and `logs/`; plans that share it share equal stages.
    """

    folder: Path
    stages: dict[str, Stage] = field(default_factory=dict)
    _files: dict[Path, Any] = field(default_factory=dict)
    _hashes: dict[Path, str] = field(default_factory=dict)

    def add(
        self,
        name: str,
        commands: Sequence[tuple[Sequence[str], Mapping[str, Any]]],
        *after: Path,
        inputs: Iterable[Path] = (),
        makes: str = "",
        kind: str = "",
    ) -> Path:
        """Adds a stage, unless it is there already.

        Args:
            name: For people; the hash tells stages apart.
            commands: The words before `--config` of each, such as `["unlearn"]`, and its options, in which `OWN` stands
                for the stage's folder.
            after: Folders of the stages whose results it reads.
            inputs: Files and folders that it reads, known by their content; those of other stages are left out.
            makes: A file that it leaves in its folder at its end.
            kind: Stages of one kind take about the same time.

        Returns:
            The stage's folder, whose name is the stage's.
        """
        plain = to_plain([[list(words), dict(options)] for words, options in commands])
        read = sorted({path for path in inputs if not path.is_relative_to(self.folder)})
        content = [plain, [self._hash(path) for path in read]]
        key = content_hash([content, [folder.name for folder in after], __version__])
        folder = self.folder / f"{readable_name(name)}-{key[:8]}"
        if folder.name in self.stages:
            return folder
        lines = []
        for number, (words, options) in enumerate(plain):
            file = self.folder / "configs" / f"{folder.name}.{number}.yaml"
            replaced = {OWN: str(folder), CONFIG: str(self.folder / "configs" / folder.name)}
            self._files[file] = _mapped(options, partial(_with, replaced))
            lines.append((*words, "--config", str(file)))
        made = (folder / makes,) if makes else ()
        parents = tuple(dict.fromkeys(parent.name for parent in after))
        self.stages[folder.name] = Stage(folder.name, parents, tuple(lines), content, made, kind, folder)
        return folder

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = content_hash(path)
        return self._hashes[path]

    def run(self, jobs: int) -> dict[str, str]:
        """Writes the YAMLs and runs the stages; see `dareu.runs.stages.run_stages`."""
        for file, options in self._files.items():
            if not file.exists() or yaml.safe_load(file.read_text(encoding="utf-8")) != options:
                write_yaml(file, options)
        return run_stages(list(self.stages.values()), self.folder / "logs", jobs)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed."""
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _with(replaced: Mapping[str, str], text: str) -> str:
    for placeholder, value in replaced.items():
        text = text.replace(placeholder, value)
    return text
