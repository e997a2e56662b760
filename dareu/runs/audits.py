"""The file of what audits found of one model: `audit.json`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict, cast

import numpy as np

from dareu.audits import Attacked, leak_score, robustness
from dareu.files import write_json
from dareu.runs._stored import read_stored
from dareu.runs.measurements import in_json


class StoredAudit(TypedDict):
    """What an `audit.json` holds of one audit."""

    key: str
    """The hash of everything that went in but the model."""
    readings: dict[str, dict[str, float]]
    """By setting and reading, the mean over the rows that have one."""
    rows: dict[str, dict[str, list[float | None]]]
    """The same row by row; None where a row has none."""
    asked: NotRequired[str]
    """The hash of the rows' prompts, by which two audits of one model are known to be of the same rows."""


class StoredAudits(TypedDict):
    """What an `audit.json` holds, beside the hash of the model."""

    audits: dict[str, StoredAudit]
    """By name, in the order in which they are shown."""
    left_out: dict[str, str]
    """Audits that could not be made, with the reasons."""


def stored_audit(key: str, found: Sequence[Attacked], asked: str) -> StoredAudit:
    """What is kept of one audit; see `StoredAudit`."""
    return {
        "key": key,
        "asked": asked,
        "readings": {each.setting: each.readings for each in found},
        "rows": {each.setting: {name: in_json(of) for name, of in each.row_values.items()} for each in found},
    }


def write_audits(path: str | os.PathLike[str], model: str, audits: StoredAudits) -> None:
    """Writes what was found of a model, known by its hash, atomically."""
    write_json(path, {"model": model, **audits})


def read_audits(path: str | os.PathLike[str], model: str | None = None) -> StoredAudits:
    """Reads what `write_audits` wrote.

    Args:
        path: The file.
        model: The hash of a model; of another one nothing is read. None: of whichever it is.

    Raises:
        ValueError: There is no such file, or it holds no audits.
    """
    found = read_stored(path, "audit", "file of audits", "audits", "audit.json")
    if model is not None and found.get("model") != model:
        return {"audits": {}, "left_out": {}}
    return cast(StoredAudits, found)


def check_alike(keys: Mapping[str, str], **others: StoredAudits) -> None:
    """Looks whether models can be compared.

    Args:
        keys: By audit, the key of what will be made.
        others: By their role, what was found of other models.

    Raises:
        ValueError: One of these was attacked with other rows or options by an audit of that name.
    """
    for role, other in others.items():
        for name, audit in other["audits"].items():
            if keys.get(name, audit["key"]) != audit["key"]:
                raise ValueError(
                    f"The {role} was audited by {name!r} with other rows or options: audit all models alike."
                )


def leak_scores(
    model: StoredAudits, target: StoredAudits, retrained: StoredAudits
) -> dict[str, dict[str, dict[str, float]]]:
    """By audit, setting and reading, `leak_score` of what was made alike of all three; what has none is left out."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, audit in model["audits"].items():
        beside = [other["audits"].get(name) for other in (target, retrained)]
        of_target, of_retrained = ({} if of is None or of["key"] != audit["key"] else of["readings"] for of in beside)
        for setting, readings in audit["readings"].items():
            known, unknown = of_target.get(setting, {}), of_retrained.get(setting, {})
            for reading in readings.keys() & known.keys() & unknown.keys():
                score = leak_score(readings[reading], known[reading], unknown[reading])
                if score is not None:
                    scores.setdefault(name, {}).setdefault(setting, {})[reading] = score
    return scores


def robustness_of(model: StoredAudits, retrained: StoredAudits) -> dict[str, float]:
    """`robustness` of the model beside the retrained control, by what was made alike of both."""
    other = retrained["audits"]
    names = [name for name, of in model["audits"].items() if name in other and other[name]["key"] == of["key"]]
    if "unattacked" not in names:
        return {}
    asked = model["audits"]["unattacked"].get("asked")  # robustness goes row by row
    names = [name for name in names if model["audits"][name].get("asked") == asked]
    strengths = (
        {
            name: {
                setting: np.array(of["extraction_strength"], dtype=np.float64)
                for setting, of in each["audits"][name]["rows"].items()
                if "extraction_strength" in of
            }
            for name in names
        }
        for each in (model, retrained)
    )
    return robustness(*strengths)
