"""The options of `dareu audit`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from dareu.audits import AUDITS, Audit
from dareu.plugins import resolve
from dareu.values import PLUGIN, READ, as_list, as_mapping


@dataclass
class AuditArguments:
    """Which model is attacked, and how."""

    model_name_or_path: Annotated[str, READ] = field(metadata={"help": "The model folder."})
    audits: Annotated[list[str] | None, PLUGIN] = field(
        default=None,
        metadata={
            "help": f"{', '.join(AUDITS)}, or an Audit of your own as pkg.mod:NAME or path/to/file.py:NAME; default: "
            "all of those named here that the rows allow. 'unattacked' is always among them."
        },
    )
    audit_kwargs: Annotated[dict[str, Any] | str | None, READ] = field(
        default_factory=dict,
        metadata={"help": "Options of each audit, as YAML or JSON: {relearning: {learning_rate: 1.0e-4}}."},
    )
    target: str | None = field(
        default=None,
        metadata={"help": "audit.json of the model before unlearning; with retrained it gives leak scores."},
    )
    retrained: str | None = field(
        default=None,
        metadata={"help": "audit.json of the retrained control; with target it gives leak scores, alone robustness."},
    )
    max_rows: int | None = field(
        default=None, metadata={"help": "Attack by at most so many rows to forget, evenly spread; default: all."}
    )
    max_new_tokens: int = field(default=200, metadata={"help": "Tokens of the longest answer."})
    audit_batch_size: int = field(
        default=64, metadata={"help": "Rows that are read at a time; the results do not depend on it."}
    )
    seed: int = field(default=0, metadata={"help": "Of all that audits draw."})
    strict: bool = field(default=False, metadata={"help": "Fail where an audit would be left out."})
    skip_impossible: bool = field(
        default=False,
        metadata={"help": "Leave out an audit that is named and cannot be made of the rows, in place of failing."},
    )
    output: str | None = field(
        default=None, metadata={"help": "The file to write; default: audit.json beside the model folder."}
    )

    def __post_init__(self) -> None:
        self.audits = as_list(self.audits)
        if self.audits is not None and not (self.audits and all(isinstance(name, str) for name in self.audits)):
            raise ValueError(f"audits is {self.audits!r}: name at least one, or leave it out for all.")
        self.audit_kwargs = as_mapping("audit_kwargs", self.audit_kwargs)
        for name, options in self.audit_kwargs.items():
            if not isinstance(options, dict):
                raise ValueError(f"audit_kwargs has {options!r} for {name}: give a mapping of that audit's options.")
        for name in ("max_rows", "max_new_tokens", "audit_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give a whole number of at least 1.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: give a whole number of at least 0.")
        if self.target is not None and self.retrained is None:
            raise ValueError("target gives leak scores beside the retrained control alone: give retrained too.")

    def options_of(self, name: str) -> dict[str, Any]:
        """The options of an audit."""
        options: dict[str, Any] = as_mapping("audit_kwargs", self.audit_kwargs).get(name, {})
        return options

    def chosen(self) -> dict[str, Audit]:
        """The audits that are named, or all built-in ones, by name.

        Raises:
            ValueError: A name stands for nothing.
        """
        return {name: resolve(name, AUDITS) for name in dict.fromkeys(["unattacked", *(self.audits or AUDITS)])}
