"""The stages of a request: judges, mask, trials of learning rates, the unlearning, measures and audits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from dareu.comparison.asked import JUDGES, Check
from dareu.comparison.ground import files_of
from dareu.data.parts import DataArguments
from dareu.methods import Method, find_method
from dareu.requests._judging import backbone_options
from dareu.requests._rates import rates_to_try
from dareu.requests.auditing import audits_of
from dareu.requests.request import Asked, Request
from dareu.runs import config_of
from dareu.runs.plans import OWN, Plan

#: Completions, or rows, of an update.
_REWARDED_ROWS, _LOSS_ROWS = 64, 32
_GROUP = 8
#: Parts of a training after which it is judged, and kept so that it can go on.
_VALIDATIONS, _CHECKPOINTS = 12, 4
#: Tokens that an answer may have beyond the longest gold one's, as a share of these.
_ROOM = 1.25
_MEASURED_ROWS = 120

#: Words of a command and the options in its YAML.
_Command = tuple[list[str], dict[str, Any]]


class Steps(Asked, Protocol):
    """What is asked of the stages; the options of `dareu forget` are one such."""

    max_steps: int
    seed: int
    audit: str
    unlearn_kwargs: Any
    measure_kwargs: Any
    audit_kwargs: Any
    classifier: str | None
    validation_judge: str | None
    test_judge: str | None

    def rate(self) -> float | None:
        """The learning rate, None where trials choose it."""


class Trial(NamedTuple):
    """A short training at one learning rate."""

    learning_rate: float
    folder: Path


def batch_options(forget_rows: int, micro_batch: int, *, rewarded: bool) -> dict[str, int]:
    """The sizes of batches, of at most 64 completions, or 32 rows of a loss, an update.

    Args:
        forget_rows: How many rows there are to forget.
        micro_batch: Rows that fit the memory at once; of a method that learns from rewards ≥ 8.
        rewarded: Whether it is one: its groups stay whole, and a rollout asks no prompt twice.
    """
    rows = min(_REWARDED_ROWS, _GROUP * max(1, forget_rows // 2)) if rewarded else min(_LOSS_ROWS, forget_rows)
    fitting = range(min(micro_batch, rows), 0, -1)
    micro = next(of for of in fitting if rows % of == 0 and (of % _GROUP == 0 or not rewarded))
    pieces = rows // micro
    found = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": pieces, "retain_batch_size": micro}
    if rewarded:
        updates = 2 if 2 * rows <= _GROUP * forget_rows else 1
        found |= {"num_generations": _GROUP, "steps_per_generation": updates * pieces}
    return found


class RequestPlan:
    """Plans the stages of one request.

    Attributes:
        plan: Gets the stages.
    """

    def __init__(self, plan: Plan, request: Request, asked: Steps, check: Check) -> None:
        """Plans nothing yet.

        Args:
            plan: See above.
            request: What is carried out.
            asked: How.
            check: Looks at the options of each stage.
        """
        self.plan, self._request, self._asked, self._check = plan, request, asked, check
        self._made: dict[str, Path] = {}
        self._paths: dict[str, str] = {}
        size = request.size
        for role in JUDGES:
            if role != "classifier" or self._method.loss is None:
                self._add_judge(role)
        if size.way == "mask":
            options = self._data(request.data) | {"model_name_or_path": asked.model_name_or_path, "score": "wagle"}
            options |= {"density": asked.density, "seed": asked.seed, "use_cpu": self._on_cpu, "output_dir": OWN}
            self._made["mask"] = self._add("mask", "attribute_weights", options)
            self._paths["mask"] = str(self._made["mask"] / "mask.safetensors")

    @property
    def mask(self) -> Path | None:
        """The folder of the mask's stage, where there is a mask."""
        return self._made.get("mask")

    def check(self, learning_rate: float) -> None:
        """Looks at the stages that come after the trials, before any is run.

        Raises:
            ValueError: A recipe would refuse its options.
        """
        self._read("unlearn", self._unlearn_options(learning_rate, self._asked.max_steps))
        self._read("measure", self._measure_options("-", "-", self._request.data))
        if options := self._audit_options("-"):
            self._read("audit", options)

    def trials(self) -> list[Trial]:
        """A short training at each learning rate to try; none where the rate is given."""
        rate = self._asked.rate()
        if rate is not None:
            return []
        size = self._request.size
        rates = rates_to_try(self._method, size.num_parameters, lora=size.way == "lora")
        steps = max(1, self._asked.max_steps // 3)
        return [Trial(rate, self.unlearning(rate, steps, "trial")) for rate in rates]

    def unlearning(self, learning_rate: float, max_steps: int, label: str = "unlearn") -> Path:
        """The folder of a training at a learning rate."""
        options = self._unlearn_options(learning_rate, max_steps)
        after = [self._made[name] for name in (*JUDGES, "mask") if name in self._made]
        return self._add(f"{label}-{learning_rate:g}", "unlearn", options, *after, makes="done", kind=label)

    def measured(self, role: str, model: str, made_by: Path | None = None) -> Path:
        """Plans to measure and to attack a model; gives the folder of what is found.

        Args:
            role: What the model is: `target`, `base`, `retrained` or `unlearned`.
            model: Its folder or hub id.
            made_by: The folder of the stage that makes it, where there is one.
        """
        commands = [(["measure"], self._measure_options(model, f"{OWN}/measurement.json", self._request.data))]
        if options := self._audit_options(model) if role != "base" else {}:
            commands.append((["audit"], options))
        return self._add_measure(f"measure-{role}", commands, *([] if made_by is None else [made_by]))

    def measured_earlier(self, role: str, model: str, made_by: Path | None = None) -> Path:
        """The same on the rows of those who were forgotten by earlier requests, and without attacks."""
        request = self._request
        excluded = [*(request.everyone.exclude_owners or ()), *request.owners]
        data = replace(request.everyone, forget_owners=request.remembered, exclude_owners=excluded)
        commands = [(["measure"], self._measure_options(model, f"{OWN}/measurement.json", data))]
        return self._add_measure(f"measure-earlier-{role}", commands, *([] if made_by is None else [made_by]))

    @property
    def _method(self) -> Method:
        return find_method(self._asked.method)

    @property
    def _on_cpu(self) -> bool:
        return self._asked.use_cpu or not torch.accelerator.is_available()

    @property
    def _room(self) -> int:
        request = self._request
        room, context = int(_ROOM * request.completion_tokens), request.size.context
        return room if context is None else max(1, min(room, context - request.prompt_tokens))

    def _add_judge(self, role: str) -> None:
        given = getattr(self._asked, role)
        if given is not None:
            self._paths[role] = str(given)
            return
        options = self._data(self._request.everyone) | self._request.judging.options[role] | {"output_dir": OWN}
        if role == "classifier":
            backbone = self._asked.base_model or self._asked.model_name_or_path
            kwargs = backbone_options(backbone, self._request.size.num_parameters)
            options |= {"classifier_kwargs": kwargs, "seed": self._asked.seed}
        self._made[role] = self._add(role, "train_classifier", options)
        self._paths[role] = str(self._made[role] / "classifier")

    def _unlearn_options(self, learning_rate: float, max_steps: int) -> dict[str, Any]:
        asked, size, rewarded = self._asked, self._request.size, self._method.loss is None
        options: dict[str, Any] = {
            "method": asked.method,
            **self._data(self._request.data),
            "model_name_or_path": asked.model_name_or_path,
            "validation_judge": self._paths["validation_judge"],
            "test_judge": self._paths["test_judge"],
            "output_dir": OWN,
            "seed": asked.seed,
            "use_cpu": self._on_cpu,
            "learning_rate": learning_rate,
            "lr_scheduler_type": "constant",
            "max_steps": max_steps,
            "validation_steps": max(1, max_steps // _VALIDATIONS),
            "logging_steps": max(1, max_steps // _VALIDATIONS),
            "save_strategy": "steps",
            "save_steps": max(1, max_steps // _CHECKPOINTS),
            "save_total_limit": 1,
            "retain_coef": 2.0,
        }
        options |= {} if asked.base_model is None else {"base_model": asked.base_model}
        options |= batch_options(self._request.rows["forget"], size.micro_batch, rewarded=rewarded)
        if rewarded:
            options |= {
                "classifier": self._paths["classifier"],
                "num_iterations": 2,
                "max_completion_length": self._room,
                "kl_coef": 0.0,
            }
        options |= {"mask": self._paths["mask"]} if size.way == "mask" else {}
        options |= {"use_peft": True} if size.way == "lora" else {}
        options |= dict(asked.unlearn_kwargs)
        if options["validation_steps"]:
            options.setdefault("early_stopping_patience", 4)
        return options

    def _measure_options(self, model: str, output: str, data: DataArguments) -> dict[str, Any]:
        asked = self._asked
        options = {
            **self._data(data),
            "model_name_or_path": model,
            "test_judge": self._paths["test_judge"],
            "max_rows": _MEASURED_ROWS,
            "max_new_tokens": self._room,
            "output": output,
        }
        options |= {"reward_judge": self._paths["classifier"]} if "classifier" in self._paths else {}
        options |= {} if asked.base_model is None else {"base_model": asked.base_model}
        return options | dict(asked.measure_kwargs)

    def _audit_options(self, model: str) -> dict[str, Any]:
        """Of `dareu audit`; none where nothing is attacked."""
        asked = self._asked
        audits = audits_of(asked.audit, self._request.columns)
        if not audits:
            return {}
        options = self._data(self._request.data) | {"model_name_or_path": model, "audits": audits, "seed": asked.seed}
        options |= {"max_new_tokens": self._room, "output": f"{OWN}/audit.json", "skip_impossible": True}
        return options | dict(asked.audit_kwargs)

    def _add_measure(self, label: str, commands: list[_Command], *after: Path) -> Path:
        inputs = [
            path for words, options in commands if words == ["measure"] for path in self._read("measure", options)
        ]
        judges = [self._made[role] for role in JUDGES if role in self._made]
        return self.plan.add(label, commands, *judges, *after, inputs=inputs, makes="measurement.json", kind="measure")

    def _add(
        self, label: str, recipe: str, options: dict[str, Any], *after: Path, makes: str = "done", kind: str = ""
    ) -> Path:
        inputs = self._read(recipe, options)
        return self.plan.add(label, [([recipe], options)], *after, inputs=inputs, makes=makes, kind=kind or recipe)

    def _read(self, recipe: str, options: Mapping[str, Any]) -> list[Path]:
        """What a stage reads, once it is known that its recipe would not refuse its options."""
        return files_of(self._check(recipe, options))

    def _data(self, data: DataArguments) -> dict[str, Any]:
        """The options of the data that are not as usual."""
        usual = config_of(DataArguments())
        return {name: value for name, value in config_of(data).items() if value != usual[name]}
