"""What the runs of one seed stand on: models, judges and masks, each made by a stage where it is not given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.comparison.asked import JUDGES, Asked, Check
from dareu.data import take_fold
from dareu.data.parts import DataArguments, forget_names, load_parts, split_owners
from dareu.files import read_yaml
from dareu.models import resolve_model_path
from dareu.runs import config_of, inputs_of
from dareu.runs.plans import OWN, Plan
from dareu.values import as_mapping

if TYPE_CHECKING:
    from datasets import Dataset

#: Halves of each owner's rows where there are trials.
VALIDATION, REPORT = "0/2", "1/2"

#: What the stage of a role leaves, where that is no classifier; without the number or name behind the role.
_RESULTS = {"base": "model", "target": "model", "retrained": "model", "mask": "mask.safetensors"}

#: Between the training seeds of one seed's controls, so that they are not those of the next seed.
_CONTROL_STRIDE = 1000

#: The recipe that makes something, its options, and the roles that it reads.
_Made = tuple[str, dict[str, Any], tuple[str, ...]]


class Ground:
    """Models, judges and masks of one seed by role.

    A role is one of `dareu.comparison.asked.ROLES`, `retrained-N` for the N-th control, or `mask-NAME` for a mask that
    is asked for.

    Attributes:
        plan: Gets a stage of each role that is named and not given.
        asked: What is asked for.
        configs: The folder of the YAMLs that models, judges and masks are made by.
        seed: Of the runs.
        request: The data, with the owners to forget by their names.
        forget: The rows to forget.
    """

    plan: Plan
    asked: Asked
    configs: Path
    seed: int
    request: DataArguments
    forget: Dataset

    def __init__(self, plan: Plan, data: DataArguments, asked: Asked, configs: Path, seed: int, check: Check) -> None:
        """Loads the data; nothing is planned yet.

        Args:
            plan: See above.
            data: The data of the comparison, whose world is that of the seed where the worlds vary.
            asked: See above.
            configs: See above.
            seed: See above.
            check: Looks at the options of each stage.

        Raises:
            ValueError: The data cannot be read, or there are trials and an owner whose rows cannot be halved.
        """
        self.plan, self.asked, self.configs, self.seed, self._check = plan, asked, configs, seed, check
        if asked.vary_world:
            data = dataclasses.replace(data, world_seed=seed)
        parts = load_parts(data)
        split, self._owners = split_owners(data, parts.owners), forget_names(data, parts.owners)
        self.forget = split.forget
        measured = (*split, *(() if parts.test is None else (parts.test,)))
        for rows in measured if asked.tune else ():
            if not all(map(len, take_fold(rows, VALIDATION))):
                raise ValueError("tune parts each owner's rows in halves, and some have one row each: leave tune out.")
        # Whoever asks to be forgotten is nothing to what is trained on everybody
        self._everyone = dataclasses.replace(data, forget_owners=None, num_forget=DataArguments.num_forget)
        self.request = dataclasses.replace(data, forget_owners=self._owners)
        self._made: dict[str, Path] = {}
        self._base_layers: int | None = None

    def path_of(self, role: str) -> str:
        """The path or hub id of what has a role; plans the stage that makes it, where it is not given.

        Raises:
            ValueError: The config that makes it is missing, or the recipe would refuse it.
        """
        if role in self.asked.given:
            return str(self.asked.given[role])
        if role not in self._made:
            self._make(role)
        return str(self._made[role] / _RESULTS.get(role.partition("-")[0], "classifier"))

    def stages_of(self, *roles: str) -> list[Path]:
        """The folders of the stages that make these, of those that are planned."""
        return [self._made[role] for role in roles if role in self._made]

    def options(self, config: Path, data: DataArguments, **more: Any) -> dict[str, Any]:
        """What a config says, about the benchmark's rows; options of the data that are as usual go unsaid.

        Args:
            config: A YAML of options.
            data: Whose options go over those of the config.
            more: Options over these.

        Raises:
            ValueError: There is no such config.
        """
        if not config.is_file():
            raise ValueError(f"There is no config {config}: write it, or give what it would make.")
        said = read_yaml(config)
        usual = config_of(DataArguments())
        rows = {name: value for name, value in config_of(data).items() if name in said or value != usual[name]}
        return said | rows | more

    def check(self, what: str, recipe: str, options: Mapping[str, Any]) -> list[Any]:
        """The dataclasses that a recipe makes of options.

        Raises:
            ValueError: What the recipe would say of them, after what they are of.
        """
        try:
            return self._check(recipe, options)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error

    def num_layers(self) -> int | None:
        """Decoder layers of the models, where that can be told without asking a hub."""
        for role in ("base", "target"):
            if role in self.asked.given and Path(name := resolve_model_path(self.path_of(role))).is_dir():
                config = Path(name) / "config.json"
                found = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
                layers: int | None = found.get("num_hidden_layers")
                return layers
        return self._base_layers

    def _make(self, role: str) -> None:
        """Plans the stage that makes what has this role."""
        if role == "base":
            recipe, options, after = self._base()
        elif role == "target" or role.startswith("retrained"):
            recipe, options, after = self._model(role)
        elif role in JUDGES:
            recipe, options, after = self._judge(role)
        else:
            recipe, options, after = self._mask(role.removeprefix("mask-"))
        parsed = self.check(role, recipe, options | {"output_dir": "-"})
        if role == "base":
            fresh = options.get("model_name_or_path") == "from-scratch"
            self._base_layers = parsed_option(parsed, "num_hidden_layers") if fresh else None
        own = role != "base" and ("seed" in options or self.asked.vary_world)
        name = f"{role}-seed{self.seed}" if own else role
        commands = [([recipe], {**options, "output_dir": OWN})]
        inputs = files_of(parsed)
        self._made[role] = self.plan.add(
            name, commands, *self.stages_of(*after), inputs=inputs, makes="done", kind=role
        )

    def _base(self) -> _Made:
        options = self.options(self.configs / "base.yaml", self._everyone)
        if self._everyone.dataset == "fictional":  # a base model has read the background, and none of the owners
            options["dataset"] = "fictional-background"
            for option in ("num_owners", "world_seed"):  # it knows neither
                options.pop(option, None)
        return "finetune", options, ()

    def _model(self, role: str) -> _Made:
        kind, _, number = role.partition("-")
        seed = self.seed + _CONTROL_STRIDE * (int(number or 1) - 1)
        more = {"seed": seed, "model_name_or_path": self.path_of("base")}
        options = self.options(self.configs / "target.yaml", self._everyone, **more)
        if kind == "retrained":
            options |= {"exclude_owners": [*(self._everyone.exclude_owners or ()), *self._owners]}
        return "finetune", options, ("base",)

    def _judge(self, role: str) -> _Made:
        options = self.options(self.configs / f"{role}.yaml", self._everyone)
        kwargs = as_mapping("classifier_kwargs", options.get("classifier_kwargs"))
        if options.get("classifier", "llm") == "llm":
            options |= {"seed": self.seed}
            if kwargs.get("model", "fictional-base") == self._base_in_configs():
                options |= {"classifier_kwargs": {**kwargs, "model": self.path_of("base")}}
        return "train_classifier", options, ("base",)

    def _mask(self, name: str) -> _Made:
        more = {"seed": self.seed, "model_name_or_path": self.path_of("target")}
        options = self.options(self.configs / "mask.yaml", self.request, **more)
        options |= self.asked.masks[name]
        density = options.get("density")
        if isinstance(density, list) and len(density) > 1:
            raise ValueError(f"The mask {name!r} has several densities: name a mask of each.")
        return "attribute_weights", options, ("target",)

    def _base_in_configs(self) -> str | None:
        """The model that the configs call their base, for which the benchmark's own stands in."""
        config = self.configs / "target.yaml"
        if not config.is_file():
            return None
        name: str = read_yaml(config).get("model_name_or_path", "fictional-base")
        return name


def files_of(parsed: Sequence[Any]) -> list[Path]:
    """What a recipe reads, by the dataclasses of its options; see `dareu.runs.inputs_of`."""
    return [path for paths in inputs_of(*parsed).values() for path in paths]


def parsed_option(parsed: Sequence[Any], name: str) -> Any:
    """The value of an option in the first of a recipe's dataclasses that has it; one of them does."""
    return next(getattr(part, name) for part in parsed if hasattr(part, name))
