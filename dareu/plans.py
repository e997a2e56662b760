"""Plans of stages that run recipes from YAML files, each in a folder named by a hash of what goes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dareu import __version__
from dareu.files import content_hash, to_plain, write_yaml
from dareu.stages import Stage, run_stages

#: Stands for the stage's own folder in the values of its options.
OWN = "<own>"


@dataclass
class Plan:
    """Stages to run. Nothing is written before `run`, so that everything can be looked at first.

    Attributes:
        folder: Gets a folder of each stage, `configs/` and `logs/`; plans that share it share equal stages.
        content: What goes into every stage beside its options, such as the hash of a dataset.
    """

    folder: Path
    content: Any = None
    stages: dict[str, Stage] = field(default_factory=dict)
    _files: dict[Path, Any] = field(default_factory=dict)

    def add(
        self,
        name: str,
        commands: Sequence[tuple[Sequence[str], Mapping[str, Any]]],
        *after: Path,
        makes: str = "",
        kind: str = "",
    ) -> Path:
        """Adds a stage, unless it is there already.

        Args:
            name: For people; the hash tells stages apart.
            commands: The words before `--config` of each, such as `["unlearn"]`, and its options, in which `OWN` stands
                for the stage's folder.
            after: Folders of the stages whose results it reads.
            makes: A file that it leaves in its folder at its end.
            kind: Stages of one kind take about the same time.

        Returns:
            The stage's folder, whose name is the stage's.
        """
        plain = to_plain([[list(words), dict(options)] for words, options in commands])
        key = content_hash([plain, [folder.name for folder in after], self.content, __version__])
        name = "".join(c if c.isalnum() or c in ".-" else "_" for c in name)
        folder = self.folder / f"{name}-{key[:8]}"
        if folder.name in self.stages:
            return folder
        lines = []
        for number, (words, options) in enumerate(plain):
            file = self.folder / "configs" / f"{folder.name}.{number}.yaml"
            self._files[file] = _replaced(options, str(folder))
            lines.append((*words, "--config", str(file)))
        made = (folder / makes,) if makes else ()
        parents = tuple(dict.fromkeys(parent.name for parent in after))
        self.stages[folder.name] = Stage(folder.name, parents, tuple(lines), [plain, self.content], made, kind)
        return folder

    def run(self, jobs: int) -> dict[str, str]:
        """Writes the YAMLs and runs the stages; see `dareu.stages.run_stages`."""
        for file, options in self._files.items():
            if not file.exists() or yaml.safe_load(file.read_text(encoding="utf-8")) != options:
                write_yaml(file, options)
        return run_stages(list(self.stages.values()), self.folder / "logs", jobs)


def _replaced(value: Any, folder: str) -> Any:
    """The value with `OWN` replaced in every text of it."""
    if isinstance(value, dict):
        return {key: _replaced(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, folder) for item in value]
    return value.replace(OWN, folder) if isinstance(value, str) else value
