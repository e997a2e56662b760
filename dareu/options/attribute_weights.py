"""The options of `dareu attribute_weights` beside those of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

from dareu.masks import SCOPES, SCORES, find_score
from dareu.values import PLUGIN, READ, as_mapping


@dataclass
class MaskArguments:
    """Which mask is made, of which model."""

    model_name_or_path: Annotated[str, READ] = field(metadata={"help": "The target model."})
    output_dir: str = field(metadata={"help": "The run's folder."})
    score: Annotated[str, PLUGIN] = field(
        default="wagle",
        metadata={
            "help": f"What ranks the weights: {', '.join(SCORES)}, or a score of your own as pkg.mod:Name or "
            "path/to/file.py:Name."
        },
    )
    score_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default=None, metadata={"help": "Options of the score, as YAML or JSON."}
    )
    density: list[float] = field(
        default_factory=lambda: [0.2],
        metadata={"help": "Share of the weights that may move, in (0, 1]; of several, each gives a mask."},
    )
    scope: str = field(
        default="global",
        metadata={"help": f"The weights among which the share is taken, all or those of each: {', '.join(SCOPES)}."},
    )
    include: list[str] = field(
        default_factory=list, metadata={"help": "Patterns of the modules to score, such as '*.mlp'; default: all."}
    )
    exclude: list[str] = field(
        default_factory=list, metadata={"help": "Patterns of modules to freeze, such as '*embed_tokens'."}
    )
    gamma: str = field(
        default="auto",
        metadata={"help": "WAGLE's stand-in for the retain loss's Hessian: a number ≥ 0, 'inf', or 'auto'."},
    )
    accumulate_on: str = field(
        default="memory",
        metadata={
            "help": "Where sums of gradients stand: 'memory', or 'disk', in files of the run's folder, for large "
            "models."
        },
    )
    batch_size: int = field(default=16, metadata={"help": "Records a backward pass; the scores do not depend on it."})
    seed: int = field(default=0, metadata={"help": "Seed of the draw of retained records, and of the random mask."})
    use_cpu: bool = field(default=False, metadata={"help": "Score on the CPU, also where there is a GPU."})

    def __post_init__(self) -> None:
        self.score_kwargs = as_mapping("score_kwargs", self.score_kwargs)
        find_score(self.score, self.score_kwargs)
        for name, known in (("scope", SCOPES), ("accumulate_on", ("memory", "disk"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}: give one of {', '.join(known)}.")
        if isinstance(self.density, float | int):  # as a YAML may say it
            self.density = [self.density]
        for density in self.density:
            if not 0 < density <= 1:
                raise ValueError(f"density is {density}: give a share in (0, 1].")
        if not self.density or len(set(self.density)) < len(self.density):
            raise ValueError(f"density is {self.density}: give one share or several, each once.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: give a whole number from 1 on.")
        if self.gamma != "auto":
            try:
                number = float(self.gamma)
            except ValueError:
                number = math.nan
            if not number >= 0:
                raise ValueError(f"gamma is {self.gamma!r}: give a number ≥ 0, 'inf' or 'auto'.")
