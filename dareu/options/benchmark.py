"""The options of `dareu benchmark` beside those of the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dareu.comparison.asked import JUDGES, ROLES
from dareu.options.judges import check_judges


@dataclass
class BenchmarkArguments:
    """What is compared."""

    output_dir: str = field(metadata={"help": "The folder that the results go to."})
    methods: list[Any] = field(
        metadata={
            "help": "Entries in YAML: {name, method, config, masks} and any option of `dareu unlearn`, of which a list "
            "makes a grid; with split_column, of `dareu spunge`. name: default the method; config: a file of configs, "
            "default the method's."
        }
    )
    configs: str = field(
        default="fictional",
        metadata={"help": "Folder with target.yaml, classifier.yaml, … and a YAML a method; of dareu's or a path."},
    )
    masks: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "Names of masks and their options of `dareu attribute_weights`: "
            "{wagle: {score: wagle, density: 0.5}}."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Seeds of the runs: every method is run with each."}
    )
    num_controls: int = field(
        default=1,
        metadata={
            "help": "Models retrained a seed. Methods are compared with the first; the others differ from it in the "
            "draws of training alone, and are rows of their own: their gap is what draws are worth."
        },
    )
    vary_world: bool = field(default=False, metadata={"help": "Give the fictional world of each run the run's seed."})
    given: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": f"Folders or hub ids of what is there already, by its role: {', '.join(ROLES)}."},
    )
    tune: int = field(
        default=0,
        metadata={
            "help": "Trials a method, of its grid; chosen on one half of everybody's rows, reported on the other. "
            "0: each setting is a row."
        },
    )
    tune_seed: int = field(
        default=0, metadata={"help": "Seed of the draw of trials, where a grid holds more than tune."}
    )
    min_utility: float = field(
        default=0.0,
        metadata={
            "help": "Choose among the trials that keep at least this share of the target's retained ROUGE, so that "
            "methods are compared at a like utility; where none does, the one that keeps most."
        },
    )
    metrics: list[str] | None = field(
        default=None,
        metadata={
            "help": "Numbers that the table shows; default: the columns of the metrics that are measured, updates and "
            "seconds. results.json has all."
        },
    )
    stages_dir: str | None = field(
        default=None,
        metadata={"help": "The folder in which stages are kept and found again; default: OUTPUT_DIR/stages."},
    )
    launch_with: str | None = field(
        default=None,
        metadata={"help": "The accelerate config that unlearning is launched with: a name such as fsdp2, or a file."},
    )
    jobs: int = field(default=2, metadata={"help": "Stages run at a time, each with OMP_NUM_THREADS or one thread."})

    def __post_init__(self) -> None:
        for name in ("seeds", "methods", "metrics"):
            value = getattr(self, name)
            if not (isinstance(value, list) and value) and not (value is None and name == "metrics"):
                raise ValueError(f"{name} is {value!r}: give a list of at least one.")
        if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in self.seeds):
            raise ValueError(f"seeds is {self.seeds}: give whole numbers.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}: give each once.")
        for name in ("masks", "given"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} is {getattr(self, name)!r}: give a mapping in YAML.")
        for name, options in self.masks.items():
            if not isinstance(options, dict):
                raise ValueError(f"masks has {options!r} for {name}: give a mapping of options, such as score: wagle.")
        if "dense" in self.masks:
            raise ValueError("masks names 'dense', which is training without a mask: give it another name.")
        for role, path in self.given.items():
            if role not in ROLES:
                raise ValueError(f"given names {role!r}: the roles are {', '.join(ROLES)}.")
            if role in JUDGES and not Path(str(path)).is_dir():
                raise ValueError(f"given names {path} as {role}, which is no folder: a judge is loaded from one.")
        check_judges(**{role: str(self.given[role]) for role in JUDGES if role in self.given})
        if not 0 <= self.min_utility <= 1:
            raise ValueError(f"min_utility is {self.min_utility}: give a share in [0, 1].")
        if self.min_utility and not self.tune:
            raise ValueError("min_utility chooses among trials: give tune too.")
        if self.num_controls < 1:
            raise ValueError(f"num_controls is {self.num_controls}: give at least one, to compare with.")
        if self.num_controls > 1 and "retrained" in self.given:
            raise ValueError(
                "num_controls retrains as target.yaml says, and the control is given, which may have been made "
                "otherwise: leave one of the two out."
            )
        if self.tune < 0 or self.jobs < 1:
            raise ValueError(f"tune is {self.tune} and jobs {self.jobs}: give 0 or more trials, and at least one job.")
